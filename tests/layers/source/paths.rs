//! The paths that the items of a module mention.

use std::collections::BTreeSet;

use syn::{
    Attribute, ImplItem, Item, ItemImpl, ItemUse, Macro, Meta, Path, Stmt, Type, UseTree,
    buffer::{Cursor, TokenBuffer},
    visit::{self, Visit},
};

use super::is_test;

/// The paths of a module, as they are written.
#[derive(Default)]
pub(crate) struct Paths {
    /// Names that a `use` brings in, and where they come from.
    pub(crate) bindings: Vec<(String, Vec<String>)>,
    /// Modules of which a `use` brings in everything.
    pub(crate) globs: Vec<Vec<String>>,
    /// Paths of two names or more in code.
    pub(crate) mentions: BTreeSet<Vec<String>>,
    /// Types that have methods here, other than those of traits.
    pub(crate) methods_of: Vec<Vec<String>>,
}

impl Paths {
    pub(crate) fn collect(&mut self, item: &Item) {
        self.visit_item(item);
    }

    fn used(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.used(&with(path.ident.to_string()), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.used(before, tree)),
            UseTree::Glob(_) => self.globs.push(before.to_vec()),
            UseTree::Name(name) => self.bind(before, &name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => self.bind(before, &rename.ident.to_string(), rename.rename.to_string()),
        }
    }

    fn bind(&mut self, before: &[String], name: &str, bound: String) {
        match (name, before) {
            ("self", [.., last]) if bound == "self" => self.bindings.push((last.clone(), before.to_vec())),
            ("self", _) => self.bindings.push((bound, before.to_vec())),
            _ => self.bindings.push((bound, [before, &[name.to_owned()]].concat())),
        }
    }

    /// Paths among the tokens of a macro, which nobody parses here.
    fn tokens(&mut self, mut at: Cursor<'_>) {
        while !at.eof() {
            if let Some((inside, _, _, after)) = at.any_group() {
                self.tokens(inside);
                at = after;
                continue;
            }
            let Some((name, mut after)) = at.ident() else {
                at = at.token_tree().map_or(at, |(_, after)| after);
                continue;
            };
            let mut path = vec![name.to_string()];
            while let Some((name, behind)) = colons(after).and_then(|after| after.ident()) {
                path.push(name.to_string());
                after = behind;
            }
            if path.len() > 1 {
                self.mentions.insert(path);
            }
            at = after;
        }
    }
}

fn colons(at: Cursor<'_>) -> Option<Cursor<'_>> {
    colon(at).and_then(colon)
}

fn colon(at: Cursor<'_>) -> Option<Cursor<'_>> {
    at.punct().filter(|(punct, _)| punct.as_char() == ':').map(|(_, after)| after)
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(super::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        match statement {
            Stmt::Local(local) if is_test(&local.attrs) => {}
            _ => visit::visit_stmt(self, statement),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.used(&[], &item.tree);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if item.trait_.is_none()
            && let Type::Path(owner) = &*item.self_ty
        {
            self.methods_of.push(names(&owner.path));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.mentions.insert(names(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.tokens(TokenBuffer::new2(item.tokens.clone()).begin());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(TokenBuffer::new2(list.tokens.clone()).begin());
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}
