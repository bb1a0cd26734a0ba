//! Inside a crate, imports point downwards: no files import each other in a circle, and where a crate has a table of layers, a
//! file imports from lower layers only and no method of a type is defined outside the type's own module.
//!
//! The check reads the sources. An import is a `use` or a path in code; one that goes through a re-export counts as an import
//! of the file that defines the item. `#[cfg(test)]` items and the files below them are left out.

#![allow(clippy::unwrap_used)]

mod controls;
mod graph;
mod source;
mod tables;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use graph::{Graph, circles};
use source::Sources;
use tables::{ALLOWED, LAYERS, Layers, Pair};

#[test]
fn no_files_import_each_other_in_a_circle() {
    let problems: Vec<_> =
        CRATES.iter().flat_map(|(folder, sources)| circle_problems(folder, &sources.imports(), ALLOWED)).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn files_import_from_lower_layers_only() {
    let of = |folder: &str| &CRATES.iter().find(|(name, _)| name == folder).unwrap().1;
    let problems: Vec<_> = LAYERS
        .iter()
        .flat_map(|layers| layers.problems(of(layers.folder).files(), &of(layers.folder).imports()))
        .collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn methods_are_defined_in_the_module_of_their_type() {
    let problems: Vec<_> = CRATES
        .iter()
        .filter(|(folder, _)| LAYERS.iter().any(|layers| layers.folder == folder))
        .flat_map(|(folder, sources)| {
            let foreign = sources.foreign_methods();
            foreign.into_iter().map(move |(file, owner)| format!("{folder}: {file} has methods of a type of {owner}"))
        })
        .collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// Circles that are not allowed, and allowed pairs that are not needed: the list can only shrink.
fn circle_problems(folder: &str, imports: &Graph, allowed: &[Pair]) -> Vec<String> {
    let allowed: Vec<&Pair> = allowed.iter().filter(|pair| pair.folder == folder).collect();
    let without = |left: &[&Pair]| {
        let is_left = |from: &str, to: &str| left.iter().any(|pair| pair.from == from && pair.to == to);
        imports.iter().filter(|(from, to)| !is_left(from, to)).cloned().collect::<Graph>()
    };
    let mut problems = Vec::new();
    for circle in circles(&without(&allowed)) {
        problems.push(format!("{folder}: these files import each other in a circle:"));
        let inside = |(from, to): &&(String, String)| circle.contains(from) && circle.contains(to);
        problems.extend(imports.iter().filter(inside).map(|(from, to)| format!("    {from} imports {to}")));
    }
    for pair in &allowed {
        let others: Vec<_> = allowed.iter().filter(|other| *other != pair).copied().collect();
        let Pair { from, to, reason, .. } = pair;
        let closes = |circle: &BTreeSet<String>| circle.contains(*from) && circle.contains(*to);
        if !circles(&without(&others)).iter().any(closes) {
            problems.push(format!(
                "{folder}: {from} may import {to} ({reason}), which closes no circle: take it off the list"
            ));
        }
    }
    problems
}

impl Layers {
    /// Files without a place, entries without a file, and imports that do not go down.
    fn problems(&self, files: BTreeSet<String>, imports: &Graph) -> Vec<String> {
        let folder = self.folder;
        let mut problems = Vec::new();
        let homeless = files.iter().filter(|file| self.place(file).is_none());
        problems.extend(homeless.map(|file| format!("{folder}: {file} has no place in the table of layers")));
        for entry in self.layers.iter().copied().flatten() {
            if !files.iter().any(|file| self.place(file).is_some_and(|(_, found)| found == *entry)) {
                problems.push(format!("{folder}: the table of layers has {entry}, which is no file"));
            }
        }
        for (from, to) in imports {
            let (Some((above, importer)), Some((below, imported))) = (self.place(from), self.place(to)) else {
                continue;
            };
            if importer != imported && below >= above {
                problems.push(format!("{folder}: {from} imports {to}, which is not in a lower layer"));
            }
        }
        problems
    }

    /// The layer of a file, counted from the bottom, and its entry there: the longest that fits.
    fn place(&self, file: &str) -> Option<(usize, &'static str)> {
        let module = file.strip_suffix(".rs")?;
        let fits = |entry: &str| {
            entry == file || module.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let entries =
            self.layers.iter().enumerate().flat_map(|(layer, entries)| entries.iter().map(move |e| (layer, *e)));
        entries.filter(|(_, entry)| fits(entry)).max_by_key(|(_, entry)| entry.len())
    }
}

/// Every crate of the workspace with sources of its own, by its folder.
static CRATES: LazyLock<Vec<(String, Sources)>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![PathBuf::from(".")];
    for parent in ["crates", "keys"] {
        for entry in fs::read_dir(root.join(parent)).unwrap() {
            folders.push(Path::new(parent).join(entry.unwrap().file_name()));
        }
    }
    folders.retain(|folder| root.join(folder).join("src").is_dir());
    folders.sort();
    let read = |folder: PathBuf| {
        let sources = root.join(&folder).join("src");
        let sources = Sources::read(&|file| fs::read_to_string(sources.join(file)).ok());
        (folder.to_str().unwrap().to_owned(), sources)
    };
    folders.into_iter().map(read).collect()
});
