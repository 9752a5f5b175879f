//! The broker's program: one that was named, else Apache Kafka, started by the script that is part of this binary.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Error;

/// What starts Apache Kafka: the same files as in `deploy/kafka`, from which tests and the demo start it.
const FILES: &[(&str, &str)] = &[
    ("kafka.sh", include_str!("../../../deploy/kafka/kafka.sh")),
    ("log4j2.properties", include_str!("../../../deploy/kafka/log4j2.properties")),
    ("pom.xml", include_str!("../../../deploy/kafka/pom.xml")),
    ("server.properties", include_str!("../../../deploy/kafka/server.properties")),
    (ENTRY, include_str!("../../../deploy/kafka/tailwater-broker")),
];

/// The file that is run.
const ENTRY: &str = "tailwater-broker";

/// The program that was named, else the one that is part of this binary, written to `folder`.
///
/// # Errors
/// There is no such program, or the folder cannot be written.
pub fn program(named: Option<&Path>, folder: &Path) -> Result<PathBuf, Error> {
    match named {
        // The child is given absolute paths; its own must not depend on where it is started either.
        Some(named) => match named.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            Ok(_) | Err(_) => Err(Error::Missing { named: named.to_owned() }),
        },
        None => unpack(folder).map_err(|source| Error::Folder { folder: folder.to_owned(), source }),
    }
}

/// Written anew at each start, so that it is the one of this version. Whole at once, because a predecessor may still be reading it.
fn unpack(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    for (name, text) in FILES {
        let staged = folder.join(format!(".{name}.new"));
        fs::write(&staged, text)?;
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode))?;
        fs::rename(&staged, folder.join(name))?;
    }
    Ok(folder.join(ENTRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_never_replaced_by_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("broker");
        let Err(error) = program(Some(&named), folder.path()) else { panic!("found") };
        assert_eq!(error.code(), tailwater_core::code::BROKER_MISSING);
        assert!(error.to_string().contains(&named.display().to_string()), "{error}");
        fs::write(&named, "").unwrap();
        assert_eq!(program(Some(&named), folder.path()).unwrap(), named.canonicalize().unwrap());
    }

    #[test]
    fn our_own_is_written_whole_and_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("state/broker/program");
        for _ in 0..2 {
            let entry = program(None, &into).unwrap();
            assert!(fs::metadata(&entry).unwrap().permissions().mode() & 0o100 != 0);
        }
        // Its usage comes from the script beside it, which needs neither Java nor a network for that.
        let output = std::process::Command::new(into.join(ENTRY)).arg("--unknown").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("kafka.sh serve --data"), "{output:?}");
        assert_eq!(fs::read_dir(&into).unwrap().count(), FILES.len());
    }
}
