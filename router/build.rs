//! Lists the files of the examples that `tailwater init` can lay out, so that they are part of the binary.
//!
//! A list made here and not a macro over the folder: cargo must notice when an example changes, and what running an example leaves
//! behind in it (`state/`) must not end up in the binary.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// (name of the template, its folder)
const TEMPLATES: &[(&str, &str)] =
    &[("WINBACK", "../deploy/examples/winback"), ("MINIMAL", "src/cli/templates/minimal")];

/// What running an example leaves behind in its folder.
const LEFT_OUT: &[&str] = &["state", "__pycache__", "spark-warehouse", "metastore_db", "derby.log"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut code = String::new();
    for (name, folder) in TEMPLATES {
        let folder = root.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files = Vec::new();
        collect(&folder, &mut files)?;
        files.sort();
        code.push_str(&format!("pub const {name}: &[(&str, &[u8])] = &[\n"));
        for file in files {
            let inside = file.strip_prefix(&folder).map_err(io::Error::other)?;
            let (inside, file) = (inside.to_string_lossy(), file.to_string_lossy());
            code.push_str(&format!("    ({inside:?}, include_bytes!({file:?})),\n"));
        }
        code.push_str("];\n");
    }
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
