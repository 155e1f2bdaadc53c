//! Imports between files: no circles, and no folder uses one after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tree::{Edge, FileId, Tree};

/// The parts of `src`, each of which may use only those before it.
///
/// The last ones are pages of re-exports for users.
pub const ORDER: [&str; 18] = [
    "macros", "sync", "slab", "metrics", "region", "slots", "wait", "lease", "buffer", "arena",
    "system", "uring", "driver", "runtime", "error", "prelude", "lib", "main",
];

/// Parts that know no memory, so that a model runs them alone.
const WITHOUT_MEMORY: [&str; 2] = ["slots", "wait"];

/// An import that runs upwards, explained in ARCHITECTURE.md: from, to.
pub type Exception = (&'static str, &'static str);

/// Gives the part that a file belongs to: its folder, or its own name at the top.
fn part(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

/// Collects the imports of one file from another.
fn imports(tree: &Tree) -> BTreeMap<(&str, &str), Vec<Edge>> {
    let mut imports: BTreeMap<_, Vec<Edge>> = BTreeMap::new();
    for edge in tree.edges() {
        let files = (tree.name(edge.from), tree.name(edge.to));
        imports.entry(files).or_default().push(edge);
    }
    imports
}

/// Lists the imports between parts that run against [`ORDER`], and exceptions that are not right.
pub fn upwards(tree: &Tree, exceptions: &[Exception], explanations: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if exceptions.len() > 2 {
        wrong.push(format!("{} exceptions: at most 2, mend the others", exceptions.len()));
    }
    let mut used = BTreeSet::new();
    for ((from, to), edges) in imports(tree) {
        let place = |file| ORDER.iter().position(|known| *known == part(file));
        let (Some(lower), Some(upper)) = (place(from), place(to)) else { continue };
        let is_memory = part(to) == "region" && WITHOUT_MEMORY.contains(&part(from));
        if lower >= upper && !is_memory {
            continue;
        }
        if let Some(exception) = exceptions.iter().find(|known| **known == (from, to)) {
            used.insert(*exception);
            continue;
        }
        let names: Vec<String> = edges.iter().map(|edge| format!("`{}`", edge.name)).collect();
        wrong.push(format!(
            "src/{from}:{} uses {} of src/{to}: `{}` may not use `{}`; move the items down or \
             their user up",
            edges[0].line,
            names.join(", "),
            part(from),
            part(to)
        ));
    }
    for file in &tree.files {
        if !ORDER.contains(&part(&file.name)) {
            wrong.push(format!(
                "src/{}:1: `{}` has no place in the order; give it one in ORDER of \
                 tests/architecture/imports.rs and in ARCHITECTURE.md",
                file.name,
                part(&file.name)
            ));
        }
    }
    for exception @ (from, to) in exceptions {
        if !used.contains(exception) {
            wrong.push(format!("src/{from} uses nothing of src/{to} any more: drop the exception"));
        }
        if !explanations.contains(from) || !explanations.contains(to) {
            wrong.push(format!("src/{from} uses src/{to}: ARCHITECTURE.md does not say why"));
        }
    }
    wrong
}

type Graph<'a> = BTreeMap<FileId, BTreeMap<FileId, &'a Edge>>;

/// Finds the shortest way along `first` and back to where it begins.
fn shortest_circle<'a>(graph: &Graph<'a>, first: &'a Edge) -> Option<Vec<&'a Edge>> {
    let mut reached: BTreeMap<FileId, &Edge> = BTreeMap::from([(first.to, first)]);
    let mut queue = VecDeque::from([first.to]);
    while let Some(file) = queue.pop_front() {
        if file == first.from {
            let mut circle = Vec::new();
            let mut at = file;
            loop {
                let edge = reached[&at];
                circle.push(edge);
                at = edge.from;
                if at == first.from {
                    circle.reverse();
                    return Some(circle);
                }
            }
        }
        for (&next, &edge) in graph.get(&file).into_iter().flatten() {
            if let std::collections::btree_map::Entry::Vacant(entry) = reached.entry(next) {
                entry.insert(edge);
                queue.push_back(next);
            }
        }
    }
    None
}

/// Lists circles of imports: for each edge that is part of one, the shortest; each circle once.
pub fn circles(tree: &Tree) -> Vec<String> {
    let edges = tree.edges();
    let mut graph = Graph::new();
    for edge in &edges {
        graph.entry(edge.from).or_default().entry(edge.to).or_insert(edge);
    }
    let mut circles = BTreeMap::new();
    for edge in graph.values().flat_map(BTreeMap::values) {
        if let Some(circle) = shortest_circle(&graph, edge) {
            let files: BTreeSet<FileId> = circle.iter().map(|edge| edge.from).collect();
            circles.entry((files.len(), files)).or_insert(circle);
        }
    }
    circles.values().map(|circle| chain(tree, circle)).collect()
}

/// Writes a circle as a chain of files with the names that tie them.
fn chain(tree: &Tree, circle: &[&Edge]) -> String {
    let mut text = String::from("a circle; move what both sides need into a file of its own:");
    for Edge { from, to, name, line } in circle {
        let (from, to) = (tree.name(*from), tree.name(*to));
        text.push_str(&format!("\n    src/{from}:{line} uses `{name}` of src/{to}"));
    }
    text
}

/// Lists the groups of files that reach each other: the knots to open.
pub fn knots(tree: &Tree) -> Vec<Vec<String>> {
    let edges = tree.edges();
    let mut uses: BTreeMap<FileId, BTreeSet<FileId>> = BTreeMap::new();
    for edge in &edges {
        uses.entry(edge.from).or_default().insert(edge.to);
    }
    let reach = |start: FileId| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(file) = next.pop() {
            for &to in uses.get(&file).into_iter().flatten() {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<FileId, BTreeSet<FileId>> =
        uses.keys().map(|&file| (file, reach(file))).collect();
    let mut knots = BTreeSet::new();
    for (file, below) in &reached {
        let knot: Vec<FileId> = below
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if !knot.is_empty() {
            knots.insert(knot);
        }
    }
    let named = |knot: Vec<FileId>| knot.iter().map(|&file| tree.name(file).to_owned()).collect();
    knots.into_iter().map(named).collect()
}
