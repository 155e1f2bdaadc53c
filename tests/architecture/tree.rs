//! The tree of modules that a crate root declares, and the resolver of its paths.
//!
//! Test modules and models are left out: what only `cfg(test)` or `cfg(uring_arena_loom)` builds.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{Kind, Token, lex};

pub type FileId = usize;
pub type ModuleId = usize;

/// A file of the tree.
pub struct File {
    /// The path below the root's folder, with `/`.
    pub name: String,
    pub tokens: Vec<Token>,
    /// A file that only tests and models build.
    pub is_test: bool,
}

impl File {
    pub fn new(name: &str, text: &str) -> File {
        File { name: name.to_owned(), tokens: lex(text), is_test: false }
    }
}

/// A definition that a name or a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Def {
    Module(ModuleId),
    /// An item that is no module, by its index in [`Tree::items`].
    Item(usize),
    /// An item of another crate, reached through an import of this one.
    Outside,
}

/// An item of a module: anything with a name but modules and imports.
pub struct Item {
    pub name: String,
    /// The keyword that defines the item.
    pub keyword: String,
    pub file: FileId,
    pub line: usize,
    pub is_public: bool,
    pub doc: String,
}

/// One leaf of a `use` declaration.
pub struct Use {
    pub path: Vec<String>,
    /// The name that it gives; `*` for a glob.
    pub alias: String,
    /// An import that others may name: `pub`, or `pub` within something.
    pub is_reexport: bool,
    /// An import that everybody may name.
    pub is_public: bool,
    pub line: usize,
}

#[derive(Default)]
pub struct Module {
    pub file: FileId,
    parent: Option<ModuleId>,
    names: BTreeMap<String, Vec<Def>>,
    pub uses: Vec<Use>,
    public_modules: Vec<ModuleId>,
}

/// A method in an inherent `impl` block.
pub struct Method {
    pub name: String,
    pub line: usize,
    pub is_public: bool,
    pub doc: String,
}

/// An inherent `impl` block.
pub struct Impl {
    pub module: ModuleId,
    pub file: FileId,
    pub line: usize,
    pub of: Vec<String>,
    pub methods: Vec<Method>,
}

/// An import of a file's item by another file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: FileId,
    pub to: FileId,
    pub name: String,
    pub line: usize,
}

/// A path in the code of a module.
struct Mention {
    module: ModuleId,
    path: Vec<String>,
    line: usize,
}

#[derive(Default)]
pub struct Tree {
    pub files: Vec<File>,
    pub modules: Vec<Module>,
    pub items: Vec<Item>,
    pub impls: Vec<Impl>,
    mentions: Vec<Mention>,
    /// Modules that are declared without a file, as text.
    pub missing: Vec<String>,
}

/// The value of a condition of a `cfg`, as far as it is known.
#[derive(Clone, Copy, PartialEq)]
enum Condition {
    Never,
    Open,
    Always,
}

/// Reads one predicate of a `cfg` from `tokens`, for a build that is neither test nor model.
fn condition(tokens: &[Token], at: &mut usize) -> Condition {
    let Some(name) = tokens.get(*at).and_then(Token::ident) else { return Condition::Open };
    *at += 1;
    match tokens.get(*at) {
        Some(token) if token.is('(') => *at += 1,
        Some(token) if token.is('=') => {
            *at += 2;
            return Condition::Open;
        }
        _ if matches!(name, "test" | "uring_arena_loom") => return Condition::Never,
        _ => return Condition::Open,
    }
    let mut parts = Vec::new();
    while let Some(token) = tokens.get(*at) {
        if token.is(')') {
            *at += 1;
            break;
        }
        if token.is(',') {
            *at += 1;
        } else {
            parts.push(condition(tokens, at));
        }
    }
    let has = |wanted| parts.contains(&wanted);
    match name {
        "not" if has(Condition::Never) => Condition::Always,
        "not" if has(Condition::Always) => Condition::Never,
        "all" if has(Condition::Never) => Condition::Never,
        "any" if has(Condition::Always) => Condition::Always,
        "any" if !has(Condition::Open) && has(Condition::Never) => Condition::Never,
        _ => Condition::Open,
    }
}

/// Finds the index after the group that opens at `at`.
fn after_group(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// Finds the index after the generics that open at `at`.
///
/// Returns `at` where none open.
fn after_generics(tokens: &[Token], at: usize) -> usize {
    if !tokens.get(at).is_some_and(|token| token.is('<')) {
        return at;
    }
    let (mut depth, mut index) = (0, at);
    while let Some(token) = tokens.get(index) {
        match token.kind {
            Kind::Punct('<') => depth += 1,
            Kind::Punct('>') if !tokens[index - 1].is('-') => depth -= 1,
            Kind::Punct('(' | '[' | '{') => {
                index = after_group(tokens, index);
                continue;
            }
            _ => {}
        }
        index += 1;
        if depth == 0 {
            break;
        }
    }
    index
}

/// Finds the index after the item, field, arm or statement that begins at `at`.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punct(';' | ',') => return at + 1,
            Kind::Punct('{') => return after_group(tokens, at),
            Kind::Punct('(' | '[') => at = after_group(tokens, at),
            Kind::Punct(')' | ']' | '}') => return at,
            _ => at += 1,
        }
    }
    at
}

/// The documentation, attributes and visibility of an item.
#[derive(Default)]
struct Head {
    doc: String,
    path: Option<String>,
    is_test: bool,
    is_reexport: bool,
    is_public: bool,
}

/// Reads documentation, attributes and visibility; returns the index after them.
fn head(tokens: &[Token], mut at: usize) -> (Head, usize) {
    let mut head = Head::default();
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            Kind::Doc(text) => {
                head.doc.push_str(text);
                head.doc.push('\n');
                at += 1;
            }
            Kind::InnerDoc(_) => at += 1,
            Kind::Punct('#') => {
                let open = if tokens[at + 1].is('!') { at + 2 } else { at + 1 };
                let end = after_group(tokens, open);
                let inner = &tokens[open + 1..end - 1];
                if inner.first().is_some_and(|token| token.is_ident("cfg")) {
                    head.is_test |= condition(inner, &mut 2) == Condition::Never;
                }
                if inner.first().is_some_and(|token| token.is_ident("path"))
                    && let Some(Kind::Str(path)) = inner.get(2).map(|token| &token.kind)
                {
                    head.path = Some(path.clone());
                }
                at = end;
            }
            Kind::Ident(name) if name == "pub" => {
                head.is_reexport = true;
                head.is_public = true;
                at += 1;
                if is_restriction(tokens, at) {
                    head.is_public = false;
                    at = after_group(tokens, at);
                }
            }
            _ => break,
        }
    }
    (head, at)
}

/// Returns `true` at the parenthesis of `pub(crate)` and the like.
fn is_restriction(tokens: &[Token], at: usize) -> bool {
    let restrictions = ["crate", "super", "self", "in"];
    tokens.get(at).is_some_and(|token| token.is('('))
        && tokens
            .get(at + 1)
            .and_then(Token::ident)
            .is_some_and(|name| restrictions.contains(&name))
}

const QUALIFIERS: [&str; 6] = ["async", "unsafe", "extern", "default", "const", "safe"];

/// Finds an item's keyword: `fn` in `pub const unsafe extern "C" fn`.
fn keyword(tokens: &[Token], mut at: usize) -> usize {
    loop {
        let Some(name) = tokens.get(at).and_then(Token::ident) else { return at };
        let next = tokens.get(at + 1);
        let qualifies = QUALIFIERS.contains(&name)
            && next.is_some_and(|token| {
                matches!(token.kind, Kind::Str(_))
                    || token.ident().is_some_and(|next| {
                        QUALIFIERS.contains(&next)
                            || matches!(next, "fn" | "impl" | "trait" | "mod" | "crate")
                    })
            });
        if !qualifies || tokens.get(at + 1).is_some_and(|token| token.is_ident("crate")) {
            return at;
        }
        at += if matches!(tokens[at + 1].kind, Kind::Str(_)) { 2 } else { 1 };
    }
}

/// Reads the leaves of a `use` tree from `at` into `leaves`; returns the index after it.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    leaves: &mut Vec<(Vec<String>, String, usize)>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        let Some(token) = tokens.get(at) else { return at };
        match &token.kind {
            Kind::Punct(':') => at += 1,
            Kind::Punct('*') => {
                leaves.push((path, "*".to_owned(), token.line));
                return at + 1;
            }
            Kind::Punct('{') => {
                let end = after_group(tokens, at);
                at += 1;
                while at < end - 1 {
                    if tokens[at].is(',') {
                        at += 1;
                    } else {
                        at = use_tree(tokens, at, &path, leaves);
                    }
                }
                return end;
            }
            Kind::Ident(name) if name == "as" => {
                let alias = tokens[at + 1].ident().unwrap_or("_").to_owned();
                leaves.push((path, alias, token.line));
                return at + 2;
            }
            Kind::Ident(name) => {
                let is_self = name == "self" && !path.is_empty();
                if !is_self {
                    path.push(name.clone());
                }
                at += 1;
                let goes_on =
                    tokens.get(at).is_some_and(|token| token.is(':') || token.is_ident("as"));
                if !goes_on {
                    let alias = path.last().cloned().unwrap_or_default();
                    leaves.push((path, alias, token.line));
                    return at;
                }
            }
            _ => return at,
        }
    }
}

/// Returns `true` for a path that begins in this crate by its own words.
fn is_own(path: &[String]) -> bool {
    matches!(path[0].as_str(), "crate" | "super" | "self")
}

/// Drops the items of a file that only tests and models build.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut at, mut kept) = (0, Vec::new());
    while at < tokens.len() {
        if !tokens[at].is_code() {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let (head, begin) = head(tokens, at);
        let end = after_declaration(tokens, begin).max(at + 1).min(tokens.len());
        if !head.is_test {
            kept.extend_from_slice(&tokens[at..end]);
        }
        at = end;
    }
    kept
}

impl Tree {
    /// Builds the tree of `files` from their `lib.rs`.
    pub fn new(files: Vec<File>) -> Tree {
        let mut tree = Tree { files, ..Tree::default() };
        for file in &mut tree.files {
            file.is_test = true;
        }
        if let Some(root) = tree.file("lib.rs") {
            tree.file_module(root, None);
        }
        tree
    }

    pub fn file(&self, name: &str) -> Option<FileId> {
        self.files.iter().position(|file| file.name == name)
    }

    pub fn name(&self, file: FileId) -> &str {
        &self.files[file].name
    }

    fn file_module(&mut self, file: FileId, parent: Option<ModuleId>) -> ModuleId {
        self.files[file].is_test = false;
        let tokens: Vec<Token> =
            self.files[file].tokens.iter().filter(|token| token.is_code()).cloned().collect();
        let module = self.add_module(file, parent);
        self.items_of(module, &tokens);
        module
    }

    fn add_module(&mut self, file: FileId, parent: Option<ModuleId>) -> ModuleId {
        self.modules.push(Module { file, parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// Gives the folder in which the files of a module's children lie, with its `/`.
    fn children_folder(&self, module: ModuleId) -> String {
        let name = self.name(self.modules[module].file);
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        match file {
            "lib.rs" | "mod.rs" => folder,
            _ => format!("{folder}{}/", file.trim_end_matches(".rs")),
        }
    }

    fn items_of(&mut self, module: ModuleId, tokens: &[Token]) {
        let mut at = 0;
        while at < tokens.len() {
            let (head, begin) = head(tokens, at);
            let end = after_declaration(tokens, begin);
            if !head.is_test && begin < tokens.len() {
                self.item(module, &tokens[begin..end], head);
            }
            at = end.max(at + 1);
        }
    }

    fn item(&mut self, module: ModuleId, tokens: &[Token], head: Head) {
        let at = keyword(tokens, 0);
        let word = tokens.get(at).and_then(Token::ident).unwrap_or_default();
        let name = tokens.get(at + 1).and_then(Token::ident).unwrap_or_default();
        match word {
            "use" => self.import(module, &tokens[at + 1..], &head),
            "mod" => self.child(module, name, tokens, head),
            "impl" => {
                self.implementation(module, tokens, at);
                self.code(module, tokens);
            }
            "macro_rules" => {
                let name = tokens.get(2).and_then(Token::ident).unwrap_or_default().to_owned();
                self.define(module, &name, word, tokens[0].line, head);
                self.code(module, tokens);
            }
            "extern" => {}
            "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" => {
                let named = match name {
                    "mut" => tokens.get(at + 2).and_then(Token::ident).unwrap_or_default(),
                    name => name,
                };
                self.define(module, named, word, tokens[at].line, head);
                self.code(module, tokens);
            }
            _ => self.code(module, tokens),
        }
    }

    fn define(&mut self, module: ModuleId, name: &str, keyword: &str, line: usize, head: Head) {
        self.items.push(Item {
            name: name.to_owned(),
            keyword: keyword.to_owned(),
            file: self.modules[module].file,
            line,
            is_public: head.is_public,
            doc: head.doc,
        });
        let item = Def::Item(self.items.len() - 1);
        self.modules[module].names.entry(name.to_owned()).or_default().push(item);
    }

    fn import(&mut self, module: ModuleId, tokens: &[Token], head: &Head) {
        let mut leaves = Vec::new();
        use_tree(tokens, 0, &[], &mut leaves);
        let (is_reexport, is_public) = (head.is_reexport, head.is_public);
        self.modules[module].uses.extend(leaves.into_iter().map(|(path, alias, line)| Use {
            path,
            alias,
            is_reexport,
            is_public,
            line,
        }));
    }

    fn child(&mut self, module: ModuleId, name: &str, tokens: &[Token], head: Head) {
        let child = match tokens.iter().position(|token| token.is('{')) {
            Some(open) => {
                let child = self.add_module(self.modules[module].file, Some(module));
                self.items_of(child, &tokens[open + 1..tokens.len() - 1]);
                child
            }
            None => {
                let folder = self.children_folder(module);
                let names = match head.path {
                    Some(path) => [format!("{folder}{path}"), String::new()],
                    None => [format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")],
                };
                let Some(file) = names.iter().find_map(|name| self.file(name)) else {
                    let here = self.name(self.modules[module].file);
                    self.missing.push(format!("{here}:{}: mod {name}", tokens[0].line));
                    return;
                };
                self.file_module(file, Some(module))
            }
        };
        self.modules[module].names.entry(name.to_owned()).or_default().push(Def::Module(child));
        if head.is_public {
            self.modules[module].public_modules.push(child);
        }
    }

    /// Notes an inherent `impl` with its methods.
    fn implementation(&mut self, module: ModuleId, tokens: &[Token], at: usize) {
        let begin = after_generics(tokens, at + 1);
        let Some(open) = tokens.iter().position(|token| token.is('{')) else { return };
        let mut of = Vec::new();
        let mut index = begin;
        while index < open {
            if let Some(name) = tokens[index].ident() {
                match name {
                    "for" => return,
                    "where" => break,
                    "dyn" | "mut" => {}
                    name => of.push(name.to_owned()),
                }
            }
            index = if tokens[index].is('<') { after_generics(tokens, index) } else { index + 1 };
        }
        let methods = methods(&tokens[open + 1..tokens.len() - 1]);
        let (file, line) = (self.modules[module].file, tokens[at].line);
        self.impls.push(Impl { module, file, line, of, methods });
    }

    /// Notes the paths of an item's code, and the imports inside it.
    fn code(&mut self, module: ModuleId, tokens: &[Token]) {
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            if token.is('#') && tokens.get(at + 1).is_some_and(|token| token.is('[')) {
                let (head, begin) = head(tokens, at);
                at = if head.is_test { after_item(tokens, begin) } else { begin };
                continue;
            }
            if token.is_ident("pub") && is_restriction(tokens, at + 1) {
                at = after_group(tokens, at + 1);
                continue;
            }
            if token.is_ident("use") && !tokens.get(at + 1).is_some_and(|token| token.is('<')) {
                let end = after_semicolon(tokens, at);
                self.import(module, &tokens[at + 1..end], &Head::default());
                at = end;
                continue;
            }
            let (path, end) = path_at(tokens, at);
            if let Some(path) = path {
                self.mentions.push(Mention { module, path, line: token.line });
            }
            at = end;
        }
    }

    /// Finds the definitions that `name` stands for inside `module`.
    fn lookup(
        &self,
        module: ModuleId,
        name: &str,
        seen: &mut BTreeSet<(ModuleId, String)>,
    ) -> Vec<Def> {
        if !seen.insert((module, name.to_owned())) {
            return Vec::new();
        }
        let scope = &self.modules[module];
        let mut found = scope.names.get(name).cloned().unwrap_or_default();
        for import in scope.uses.iter().filter(|import| import.alias == name) {
            let defs = self.walk(module, &import.path, seen);
            let is_outside = defs.is_empty() && !is_own(&import.path);
            found.extend(defs);
            found.extend(is_outside.then_some(Def::Outside));
        }
        if found.is_empty() {
            for import in scope.uses.iter().filter(|import| import.alias == "*") {
                for target in self.walk(module, &import.path, seen) {
                    if let Def::Module(target) = target {
                        found.extend(self.lookup(target, name, seen));
                    }
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }

    fn walk(
        &self,
        module: ModuleId,
        path: &[String],
        seen: &mut BTreeSet<(ModuleId, String)>,
    ) -> Vec<Def> {
        let mut at = 0;
        let mut current = module;
        while let Some(segment) = path.get(at) {
            match segment.as_str() {
                "crate" => current = 0,
                "self" => {}
                "super" => match self.modules[current].parent {
                    Some(parent) => current = parent,
                    None => return Vec::new(),
                },
                _ => break,
            }
            at += 1;
        }
        let mut found = vec![Def::Module(current)];
        for segment in &path[at..] {
            found = found
                .into_iter()
                .flat_map(|def| match def {
                    // An associated item is its type's.
                    Def::Item(_) | Def::Outside => vec![def],
                    Def::Module(module) => self.lookup(module, segment, &mut seen.clone()),
                })
                .collect();
        }
        found
    }

    /// Finds the definitions that `path` stands for inside `module`.
    pub fn resolve(&self, module: ModuleId, path: &[String]) -> Vec<Def> {
        self.walk(module, path, &mut BTreeSet::new())
    }

    /// Lists the crate's own paths that resolve to nothing: the resolver is blind there.
    pub fn unresolved(&self) -> Vec<String> {
        let imports = self.modules.iter().enumerate().flat_map(|(module, scope)| {
            scope.uses.iter().map(move |import| (module, &import.path, import.line))
        });
        let mentions =
            self.mentions.iter().map(|mention| (mention.module, &mention.path, mention.line));
        imports
            .chain(mentions)
            .filter(|(_, path, _)| is_own(path))
            .filter(|(module, path, _)| self.resolve(*module, path).is_empty())
            .map(|(module, path, line)| {
                format!(
                    "src/{}:{line}: `{}` is not found; teach tests/architecture/tree.rs",
                    self.name(self.modules[module].file),
                    path.join("::")
                )
            })
            .collect()
    }

    /// Lists the paths into other crates, each import written out.
    pub fn outside_paths(&self) -> Vec<(ModuleId, Vec<String>, usize)> {
        let mut paths = BTreeSet::new();
        for (module, scope) in self.modules.iter().enumerate() {
            for import in &scope.uses {
                paths.insert((module, import.path.clone(), import.line));
            }
        }
        for Mention { module, path, line } in self.mentions.iter().filter(|m| m.path.len() > 1) {
            let import = self.modules[*module].uses.iter().find(|import| import.alias == path[0]);
            let path = match import {
                Some(import) => import.path.iter().chain(&path[1..]).cloned().collect(),
                None => path.clone(),
            };
            paths.insert((*module, path, *line));
        }
        let is_outside = |(module, path, _): &(ModuleId, Vec<String>, usize)| {
            !is_own(path) && self.resolve(*module, path).iter().all(|def| *def == Def::Outside)
        };
        let mut paths: Vec<_> = paths.into_iter().filter(is_outside).collect();
        paths.sort_by_key(|(module, _, line)| (*module, *line));
        paths
    }

    /// Lists imports of items of other files, by `use` or in full: each name once per file.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = BTreeMap::new();
        let mut add = |module: ModuleId, path: &[String], line: usize| {
            let from = self.modules[module].file;
            for def in self.resolve(module, path) {
                if let Def::Item(item) = def
                    && self.items[item].file != from
                {
                    let Item { file, name, .. } = &self.items[item];
                    let first = edges.entry((from, *file, name.clone())).or_insert(line);
                    *first = line.min(*first);
                }
            }
        };
        for (module, scope) in self.modules.iter().enumerate() {
            for import in scope.uses.iter().filter(|import| !import.is_reexport) {
                add(module, &import.path, import.line);
            }
        }
        for mention in &self.mentions {
            add(mention.module, &mention.path, mention.line);
        }
        let edge = |((from, to, name), line)| Edge { from, to, name, line };
        edges.into_iter().map(edge).collect()
    }

    /// Collects the items that users of the crate can name.
    pub fn public_items(&self) -> BTreeSet<usize> {
        let (mut public, mut modules, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![0]);
        while let Some(module) = next.pop() {
            if !modules.insert(module) {
                continue;
            }
            let scope = &self.modules[module];
            next.extend(&scope.public_modules);
            for def in scope.names.values().flatten() {
                if let Def::Item(item) = *def
                    && self.items[item].is_public
                {
                    public.insert(item);
                }
            }
            for import in scope.uses.iter().filter(|import| import.is_public) {
                for def in self.resolve(module, &import.path) {
                    match def {
                        Def::Item(item) => _ = public.insert(item),
                        Def::Module(module) => next.push(module),
                        Def::Outside => {}
                    }
                }
            }
        }
        public
    }
}

/// Finds the index after the item of a module that begins at `at`, without its head.
fn after_declaration(tokens: &[Token], at: usize) -> usize {
    let word = tokens.get(keyword(tokens, at)).and_then(Token::ident).unwrap_or_default();
    match word {
        "use" | "const" | "static" | "type" => after_semicolon(tokens, at),
        _ => after_block_or_semicolon(tokens, at),
    }
}

fn after_semicolon(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punct(';') => return at + 1,
            Kind::Punct('(' | '[' | '{') => at = after_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

fn after_block_or_semicolon(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punct(';') => return at + 1,
            Kind::Punct('{') => return after_group(tokens, at),
            Kind::Punct('(' | '[') => at = after_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Lists the methods in the body of an `impl`.
fn methods(tokens: &[Token]) -> Vec<Method> {
    let (mut at, mut found) = (0, Vec::new());
    while at < tokens.len() {
        let (head, begin) = head(tokens, at);
        let word = keyword(tokens, begin);
        if tokens.get(word).is_some_and(|token| token.is_ident("fn")) && !head.is_test {
            let name = tokens[word + 1].ident().unwrap_or_default().to_owned();
            let Head { is_public, doc, .. } = head;
            found.push(Method { name, line: tokens[word].line, is_public, doc });
        }
        at = after_declaration(tokens, begin).max(at + 1);
    }
    found
}

const KEYWORDS: [&str; 36] = [
    "Self", "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "extern",
    "false", "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub",
    "ref", "return", "static", "struct", "trait", "true", "type", "union", "unsafe", "use",
    "where", "while",
];

/// Words after which a name is defined, not used.
const DEFINING: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];

/// Reads the path that begins at `at`, and the index to go on at.
///
/// Returns `None` for the path where it cannot name an item.
fn path_at(tokens: &[Token], at: usize) -> (Option<Vec<String>>, usize) {
    let Some(first) = tokens[at].ident() else { return (None, at + 1) };
    let before = |back: usize| at.checked_sub(back).map(|index| &tokens[index]);
    let is_before = |back: usize, punct| before(back).is_some_and(|token| token.is(punct));
    let (mut path, mut end) = (vec![first.to_owned()], at + 1);
    while let (Some(one), Some(two), Some(name)) =
        (tokens.get(end), tokens.get(end + 1), tokens.get(end + 2).and_then(Token::ident))
        && one.is(':')
        && two.is(':')
    {
        path.push(name.to_owned());
        end += 3;
    }
    let is_method = is_before(1, '.') && !is_before(2, '.');
    let goes_on = is_before(1, ':') && is_before(2, ':');
    let is_variable = is_before(1, '$') && first != "crate";
    let is_defined = before(1).and_then(Token::ident).is_some_and(|word| DEFINING.contains(&word));
    let next = |punct| tokens.get(end).is_some_and(|token| token.is(punct));
    let is_macro = next('!') && !tokens.get(end + 1).is_some_and(|token| token.is('='));
    let is_single = path.len() == 1;
    let is_field = is_single && next(':') && !tokens.get(end + 1).is_some_and(|t| t.is(':'));
    let is_local = is_single && first.starts_with(char::is_lowercase) && !next('(');
    let is_keyword =
        KEYWORDS.contains(&first) || (is_single && matches!(first, "crate" | "self" | "super"));
    let names_nothing = is_method
        || goes_on
        || is_variable
        || is_defined
        || is_macro
        || is_field
        || is_local
        || is_keyword;
    ((!names_nothing).then_some(path), end)
}
