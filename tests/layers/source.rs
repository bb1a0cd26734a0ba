//! The files of a crate, their definitions, and their imports from each other.

mod paths;
mod resolver;

use std::collections::{BTreeMap, BTreeSet};

use syn::{Attribute, Item};

use crate::graph::Graph;
use paths::Paths;
use resolver::{Resolver, Target};

/// A crate, read and parsed.
#[derive(Default)]
pub(crate) struct Sources {
    modules: BTreeMap<Module, Contents>,
}

/// The names from the root of a target (`lib`, `main`) down to a module.
type Module = Vec<String>;

/// A module's own contents, without those of the modules in it.
#[derive(Default)]
struct Contents {
    file: String,
    items: BTreeSet<String>,
    paths: Paths,
}

impl Sources {
    /// Reads a crate through `read`, which answers the text of a file below `src`.
    pub(crate) fn read(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut sources = Self::default();
        for target in ["lib", "main"] {
            let file = format!("{target}.rs");
            if let Some(text) = read(&file) {
                sources.file(read, vec![target.to_owned()], &file, "", &text);
            }
        }
        sources
    }

    pub(crate) fn files(&self) -> BTreeSet<String> {
        self.modules.values().map(|contents| contents.file.clone()).collect()
    }

    /// Which file imports which.
    pub(crate) fn imports(&self) -> Graph {
        let (mut imports, names) = (Graph::new(), Resolver::new(&self.modules));
        for (module, contents) in &self.modules {
            let Paths { bindings, globs, mentions, .. } = &contents.paths;
            let mut targets: Vec<Target> = Vec::new();
            targets.extend(bindings.iter().filter_map(|(_, path)| names.resolve(module, path)));
            targets.extend(mentions.iter().filter_map(|path| names.resolve(module, path)));
            for glob in globs {
                let Some(Target::Module(from)) = names.resolve(module, glob) else { continue };
                // Everything in it comes in, also the items that it only re-exports.
                let reexported = &self.modules[&from].paths.bindings;
                targets.extend(reexported.iter().filter_map(|(_, path)| names.resolve(&from, path)));
                if !self.modules[&from].items.is_empty() {
                    targets.push(Target::ItemOf(from));
                }
            }
            for target in targets {
                // A module that is imported as such shows by the paths through it.
                let Target::ItemOf(target) = target else { continue };
                let imported = &self.modules[&target].file;
                if *imported != contents.file {
                    imports.insert((contents.file.clone(), imported.clone()));
                }
            }
        }
        imports
    }

    /// Files with methods of a type that neither they nor a module around them define, and the type's file.
    pub(crate) fn foreign_methods(&self) -> BTreeSet<(String, String)> {
        let (mut foreign, names) = (BTreeSet::new(), Resolver::new(&self.modules));
        for (module, contents) in &self.modules {
            for path in &contents.paths.methods_of {
                if let Some(Target::ItemOf(owner)) = names.resolve(module, path)
                    && !module.starts_with(&owner)
                {
                    foreign.insert((contents.file.clone(), self.modules[&owner].file.clone()));
                }
            }
        }
        foreign
    }

    /// Adds the module that `text` is, and those below it. `folder` is where its own modules have their files.
    fn file(&mut self, read: &dyn Fn(&str) -> Option<String>, module: Module, file: &str, folder: &str, text: &str) {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.module(read, module, file, folder, &parsed.items);
    }

    fn module(
        &mut self,
        read: &dyn Fn(&str) -> Option<String>,
        module: Module,
        file: &str,
        folder: &str,
        items: &[Item],
    ) {
        let mut contents = Contents { file: file.to_owned(), ..Contents::default() };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            contents.items.extend(name(item));
            let Item::Mod(child) = item else {
                contents.paths.collect(item);
                continue;
            };
            let name = child.ident.to_string();
            let path = [module.as_slice(), std::slice::from_ref(&name)].concat();
            let below = format!("{folder}{name}/");
            if let Some((_, items)) = &child.content {
                self.module(read, path, file, &below, items);
                continue;
            }
            let files = [format!("{folder}{name}.rs"), format!("{below}mod.rs")];
            let found = files.iter().find_map(|file| Some((file, read(file)?)));
            let (child, text) = found.unwrap_or_else(|| panic!("{file} declares {name}, which has no file"));
            self.file(read, path, child, &below, &text);
        }
        self.modules.insert(module, contents);
    }
}

/// Whether an item is there for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
