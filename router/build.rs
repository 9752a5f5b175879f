//! Lists the files of the examples that `tailwater init` can lay out, so that they are part of the binary.
//!
//! A list made here and not a macro over the folder: cargo must notice when an example changes, and what running an example leaves
//! behind in it (`state/`) must not end up in the binary.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Every folder in here is a template of its name.
const EXAMPLES: &str = "../deploy/examples";

/// What `init` says about the example: what it is, what to do first, and the commands to go on with, a line each. An example without
/// it is none of `init`'s.
const INIT: &str = "init.txt";

/// What running an example leaves behind in its folder, and the script that made its lake, which needs the one beside the examples.
const LEFT_OUT: &[&str] = &["state", "__pycache__", "spark-warehouse", "metastore_db", "derby.log", "make_lake.py"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut code = String::new();
    let examples = root.join(EXAMPLES);
    println!("cargo::rerun-if-changed={}", examples.display());
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&examples)? {
        folders.push(entry?.path());
    }
    folders.sort();
    code.push_str("pub static TEMPLATES: &[Template] = &[\n");
    for folder in folders.iter().filter(|folder| folder.join(INIT).is_file()) {
        let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let text = fs::read_to_string(folder.join(INIT))?;
        let mut lines = text.lines();
        let (Some(summary), Some(begin)) = (lines.next(), lines.next()) else {
            return Err(io::Error::other(format!("{name}/{INIT} needs two lines: what it is, and what to do first")));
        };
        let steps: Vec<&str> = lines.collect();
        let mut files = Vec::new();
        collect(folder, &mut files)?;
        files.sort();
        code.push_str(&format!(
            "Template {{ name: {name:?}, summary: {summary:?}, begin: {begin:?}, steps: &{steps:?}, files: &[\n"
        ));
        for file in files.iter().filter(|file| **file != folder.join(INIT)) {
            let inside = file.strip_prefix(folder).map_err(io::Error::other)?;
            let (inside, file) = (inside.to_string_lossy(), file.to_string_lossy());
            code.push_str(&format!("    ({inside:?}, include_bytes!({file:?})),\n"));
        }
        code.push_str("] },\n");
    }
    code.push_str("];\n");
    fs::write(out.join("templates.rs"), code)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
