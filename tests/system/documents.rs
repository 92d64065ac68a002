//! What the documents name exists: every file, and every test that is said to hold a guarantee.

use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const README: &str = include_str!("../../README.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// The words of a text that stand in backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// All Rust of the folder, in one text.
fn source(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.push_str(&source(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            all.push_str(&std::fs::read_to_string(path).expect("a file"));
        }
    }
    all
}

#[test]
fn every_guarantee_names_tests_and_they_exist() {
    let (_, guarantees) = ARCHITECTURE.split_once("## Guarantees").expect("the guarantees");
    let (guarantees, _) = guarantees.split_once("\n## ").expect("an end of them");
    let sources: String = ["actors", "src", "tests"].map(|folder| source(&Path::new(ROOT).join(folder))).concat();
    for number in 1..=10 {
        let row = guarantees.lines().find(|line| line.starts_with(&format!("| G{number} ")));
        let tests = row.and_then(|row| row.rsplit('|').nth(1)).unwrap_or_else(|| panic!("G{number} is not there"));
        assert!(named(tests).count() > 0, "G{number} is held by nothing");
        for test in named(tests) {
            let there = ['(', '<'].iter().any(|end| sources.contains(&format!("fn {test}{end}")));
            assert!(there, "G{number}: there is no test {test}");
        }
    }
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut looked = 0;
    for word in named(README).chain(named(ARCHITECTURE)) {
        let of_ours =
            ["actors/", "src/", "tests/", "xtask/", "examples/"].iter().any(|folder| word.starts_with(folder));
        if of_ours && !word.contains('{') {
            looked += 1;
            assert!(Path::new(ROOT).join(word).exists(), "there is no {word}");
        }
    }
    assert!(looked > 20, "only {looked} files were found in the documents");
}
