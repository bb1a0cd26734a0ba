//! Which file imports which, and the circles in that.

use std::collections::{BTreeMap, BTreeSet};

/// Pairs of an importing file and an imported one.
pub(crate) type Graph = BTreeSet<(String, String)>;

/// The sets of files that reach each other by imports.
pub(crate) fn circles(imports: &Graph) -> Vec<BTreeSet<String>> {
    let (mut forwards, mut backwards) = (Neighbours::new(), Neighbours::new());
    for (from, to) in imports {
        forwards.entry(from).or_default().push(to);
        backwards.entry(to).or_default().push(from);
    }
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for file in forwards.keys() {
        if circles.iter().any(|circle| circle.contains(*file)) {
            continue;
        }
        let (above, below) = (reached(file, &backwards), reached(file, &forwards));
        let circle: BTreeSet<_> = above.intersection(&below).map(|file| (*file).to_owned()).collect();
        if circle.len() > 1 {
            circles.push(circle);
        }
    }
    circles
}

type Neighbours<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The files that `start` leads to, by one step or more; with `start`.
fn reached<'a>(start: &'a str, neighbours: &Neighbours<'a>) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::from([start]), vec![start]);
    while let Some(file) = open.pop() {
        open.extend(neighbours.get(file).into_iter().flatten().copied().filter(|next| reached.insert(next)));
    }
    reached
}
