//! The page of tests: each test that it names exists.

/// Binaries of the folder `tests`.
const BINARIES: [&str; 9] = [
    "accept_limits",
    "allocations",
    "architecture",
    "arena",
    "driver",
    "runtime",
    "soak",
    "uring",
    "waiting",
];

/// Lists names of tests in a page that begin no test: `binary::module::beginning`.
pub fn missing_tests(place: &str, page: &str, sources: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, line) in page.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            let parts: Vec<&str> = name.split("::").collect();
            let is_name = parts.len() > 1 && BINARIES.contains(&parts[0]);
            if is_name && !is_there(&parts, sources) {
                wrong.push(format!("{place}:{}: `{name}` begins the name of no test", at + 1));
            }
        }
    }
    wrong
}

/// Returns `true` if `parts` are a binary, perhaps a module, and perhaps the beginning of a test.
fn is_there(parts: &[&str], sources: &[(String, String)]) -> bool {
    let text = |name: String| sources.iter().find(|file| file.0 == name).map(|file| &file.1);
    let begins = |text: &String, test: &str| text.contains(&format!("fn {test}"));
    match *parts {
        [binary, last] => {
            let alone = [format!("tests/{binary}.rs"), format!("tests/{binary}/main.rs")];
            text(format!("tests/{binary}/{last}.rs")).is_some()
                || alone.into_iter().filter_map(text).any(|text| begins(text, last))
        }
        [binary, module, test] => {
            text(format!("tests/{binary}/{module}.rs")).is_some_and(|text| begins(text, test))
        }
        _ => false,
    }
}
