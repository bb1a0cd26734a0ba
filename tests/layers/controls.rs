//! Controls: faults that the check must find in made-up crates, and code that it must let pass.

use std::collections::BTreeSet;

use super::{Layers, circle_problems};
use crate::{source::Sources, tables::Pair};

#[test]
fn a_circle_of_two_files_is_found_and_names_both() {
    let found =
        problems(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", USES_A)], &[]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[1].contains("a.rs imports b.rs") && found[2].contains("b.rs imports a.rs"), "{found:?}");
    // The control: one way.
    let none = problems(&[("lib.rs", "mod a; mod b;"), ("a.rs", "pub struct A;"), ("b.rs", USES_A)], &[]);
    assert!(none.is_empty(), "{none:?}");
}

#[test]
fn a_circle_over_three_files_is_found() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub fn a() { crate::b::b() }"),
        ("b.rs", "use super::c; pub fn b() { c::c() }"),
        ("c.rs", "pub fn c() { println!(\"{}\", crate::a::a()) }"),
    ];
    assert_eq!(problems(&files, &[]).len(), 4, "a path in code, through an imported module, and in a macro");
}

#[test]
fn a_parent_with_code_and_a_child_that_import_each_other_are_a_circle() {
    let child = ("a/child.rs", "use super::A; pub struct Child(A);");
    let parent = ("a.rs", "mod child; pub struct A; fn f() -> child::Child { loop {} }");
    assert!(!problems(&[("lib.rs", "mod a;"), parent, child], &[]).is_empty());
    // The controls: a parent that only declares the child, and one that only hands its children's items on.
    let declares = ("a.rs", "mod child; pub struct A;");
    assert!(problems(&[("lib.rs", "mod a;"), declares, child], &[]).is_empty());
    let facade = ("a.rs", "mod child; mod item; pub use child::Child; pub use item::A;");
    assert!(problems(&[("lib.rs", "mod a;"), facade, child, ("a/item.rs", "pub struct A;")], &[]).is_empty());
}

#[test]
fn an_import_through_a_re_export_is_one_of_the_file_that_defines_the_item() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::A as Other;"),
        ("a.rs", "pub struct A; impl A { fn f(&self) -> crate::b::B { loop {} } }"),
        ("b.rs", "use crate::Other; pub struct B(Other);"),
    ];
    let imports = sources(&files).imports();
    assert!(imports.contains(&("b.rs".to_owned(), "a.rs".to_owned())), "{imports:?}");
    assert!(!problems(&files, &[]).is_empty());
    let glob = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::*; pub struct A;"), ("b.rs", USES_A)];
    assert!(!problems(&glob, &[]).is_empty());
}

#[test]
fn what_tests_import_does_not_count() {
    let tested =
        "pub struct A; #[cfg(test)] mod tests { use crate::b::B; } #[cfg(test)] impl A { fn f() { crate::b::f() } }";
    let files = [("lib.rs", "mod a; mod b; #[cfg(test)] mod missing;"), ("a.rs", tested), ("b.rs", USES_A)];
    assert!(problems(&files, &[]).is_empty());
    let code = tested.replace("#[cfg(test)]", "");
    assert!(!problems(&[("lib.rs", "mod a; mod b;"), ("a.rs", &code), ("b.rs", USES_A)], &[]).is_empty());
}

#[test]
fn an_allowed_circle_passes_until_it_is_dissolved() {
    let pair = Pair { folder: "made/up", from: "a.rs", to: "b.rs", reason: "made up" };
    let circle = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", USES_A)];
    assert!(problems(&circle, std::slice::from_ref(&pair)).is_empty());
    let dissolved =
        [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", "pub struct B;")];
    let stale = problems(&dissolved, &[pair]);
    assert!(stale.len() == 1 && stale[0].contains("take it off the list"), "{stale:?}");
}

#[test]
fn an_import_that_goes_up_or_sideways_is_found_and_a_file_without_a_place_too() {
    let layers = Layers { folder: "made/up", layers: &[&["a", "b"], &["c.rs"], &["c/low"], &["lib"]] };
    let files = |a: &'static str, b: &'static str| {
        [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", a),
            ("b.rs", b),
            ("c.rs", "pub mod low;"),
            ("c/low.rs", "pub struct L;"),
        ]
    };
    let found = |files: &[(&str, &str)]| {
        let sources = sources(files);
        layers.problems(sources.files(), &sources.imports())
    };
    assert_eq!(found(&files("pub struct A;", "pub struct B;")), Vec::<String>::new());
    assert!(found(&files("pub struct A(crate::c::low::L);", "pub struct B;"))[0].contains("a.rs imports c/low.rs"));
    assert!(found(&files("pub struct A;", USES_A))[0].contains("b.rs imports a.rs"), "one of the same layer");
    let homeless = [("lib.rs", "mod a; mod d;"), ("a.rs", ""), ("d.rs", "")];
    let found = found(&homeless);
    assert!(found[0].contains("d.rs has no place"), "{found:?}");
    assert_eq!(found.iter().filter(|problem| problem.contains("is no file")).count(), 3, "{found:?}");
}

#[test]
fn a_method_of_a_type_outside_its_module_is_found() {
    let files = |file: &'static str| {
        [("lib.rs", "mod a; mod b;"), ("a.rs", "mod more; pub struct A;"), ("a/more.rs", OF_A), ("b.rs", file)]
    };
    const OF_A: &str = "use crate::a::A; impl A { pub fn f() {} }";
    assert_eq!(sources(&files(OF_A)).foreign_methods(), BTreeSet::from([("b.rs".to_owned(), "a.rs".to_owned())]));
    // The control: a trait may be implemented for a type of below.
    assert!(
        sources(&files("use crate::a::A; impl Clone for A { fn clone(&self) -> A { A } }"))
            .foreign_methods()
            .is_empty()
    );
}

const USES_A: &str = "use crate::a::A; pub struct B(A);";

fn problems(files: &[(&str, &str)], allowed: &[Pair]) -> Vec<String> {
    circle_problems("made/up", &sources(files).imports(), allowed)
}

fn sources(files: &[(&str, &str)]) -> Sources {
    Sources::read(&|file| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()))
}
