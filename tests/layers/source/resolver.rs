//! The target of a path, through modules and re-exports.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use super::{Contents, Module};

/// The target of a path.
#[derive(Clone)]
pub(crate) enum Target {
    Module(Module),
    /// An item that this module defines.
    ItemOf(Module),
}

/// Finds names in the modules of a crate.
pub(crate) struct Resolver<'a> {
    modules: &'a BTreeMap<Module, Contents>,
    /// The items that were found, by module and name. None is there also while one is being looked for: re-exports that go
    /// round in a circle lead nowhere.
    found: RefCell<HashMap<(Module, String), Option<Target>>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(modules: &'a BTreeMap<Module, Contents>) -> Self {
        Self { modules, found: RefCell::default() }
    }

    /// The target of `path` in a module; none when that is outside the crate.
    pub(crate) fn resolve(&self, module: &[String], path: &[String]) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Target::Module(module[..1].to_vec()),
            "self" => Target::Module(module.to_vec()),
            "super" => Target::Module(module[..module.len() - 1].to_vec()),
            name => self.find(module, name, rest.is_empty())?,
        };
        while let (Target::Module(module), [next, others @ ..]) = (&at, rest) {
            at = match next.as_str() {
                "super" => Target::Module(module[..module.len() - 1].to_vec()),
                // A macro may have made it.
                name => self.find(module, name, others.is_empty()).unwrap_or_else(|| Target::ItemOf(module.clone())),
            };
            rest = others;
        }
        Some(at)
    }

    /// The target of a name in a module: a module in it, an item of its own, or one that it imports. Where a module and
    /// an item have one name, the item is meant at the end of a path.
    fn find(&self, module: &[String], name: &str, is_last: bool) -> Option<Target> {
        let child = || self.child(module, name).map(Target::Module);
        if is_last { self.item(module, name).or_else(child) } else { child().or_else(|| self.item(module, name)) }
    }

    fn child(&self, module: &[String], name: &str) -> Option<Module> {
        let child = [module, &[name.to_owned()]].concat();
        self.modules.contains_key(&child).then_some(child)
    }

    fn item(&self, module: &[String], name: &str) -> Option<Target> {
        let key = (module.to_vec(), name.to_owned());
        if let Some(found) = self.found.borrow().get(&key) {
            return found.clone();
        }
        self.found.borrow_mut().insert(key.clone(), None);
        let found = self.look(module, name);
        self.found.borrow_mut().insert(key, found.clone());
        found
    }

    fn look(&self, module: &[String], name: &str) -> Option<Target> {
        let Contents { items, paths, .. } = self.modules.get(module)?;
        if items.contains(name) {
            return Some(Target::ItemOf(module.to_vec()));
        }
        let bound = paths.bindings.iter().filter(|(bound, _)| bound == name);
        let mut found = bound.filter_map(|(_, path)| match path.as_slice() {
            // As in `mod a; use a::a;`: the path begins with a module of the same name.
            [first, rest @ ..] if first == name => self.resolve(&self.child(module, name)?, rest),
            path => self.resolve(module, path),
        });
        found.next().or_else(|| {
            paths.globs.iter().find_map(|glob| match self.resolve(module, glob)? {
                Target::Module(from) if from != module => self.find(&from, name, true),
                _ => None,
            })
        })
    }
}
