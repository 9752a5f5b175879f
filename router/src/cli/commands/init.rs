//! `tailwater init`: the files of an example in a folder of one's own. Never overwrites anything.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tailwater_core::code;

use crate::cli::args::InitArgs;
use crate::cli::templates::{TEMPLATES, Template};
use crate::cli::{Error, Exit, output};

/// How many of the files that are in the way are named.
const NAMED_MAX: usize = 5;

/// Lays the template out and says what to do next.
///
/// # Errors
/// A file of the template is there already (then nothing is written), or the folder cannot be written.
pub fn execute(args: &InitArgs) -> Result<Exit, Error> {
    let Some(template) = TEMPLATES.iter().find(|template| template.name == args.template) else {
        // The parser of arguments lets only known names through.
        let message = format!("there is no template {}", args.template);
        return Err(Error::Failed { code: code::INIT_REFUSED, message });
    };
    lay_out(&args.dir, template.files)?;
    output::text(&farewell(&args.dir, template))?;
    Ok(Exit::Success)
}

fn lay_out(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    let present: Vec<&str> =
        files.iter().map(|(name, _)| *name).filter(|name| folder.join(name).symlink_metadata().is_ok()).collect();
    if !present.is_empty() {
        let named = present.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let others = match present.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let message = format!(
            "nothing was written, because {} has files of these names already: {named}{others}; choose another folder",
            folder.display()
        );
        return Err(Error::Failed { code: code::INIT_REFUSED, message });
    }
    for (name, content) in files {
        let file = folder.join(name);
        write(&file, content).map_err(|error| Error::Failed {
            code: code::INIT_REFUSED,
            message: format!("could not write {}: {error}", file.display()),
        })?;
    }
    Ok(())
}

/// Writes a new file; one that has appeared since is left alone.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if content.starts_with(b"#!") {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o755);
    }
    options.open(file)?.write_all(content)
}

fn farewell(folder: &Path, template: &Template) -> String {
    let config = folder.join("tailwater.yaml");
    let enter: PathBuf = if folder == Path::new(".") { PathBuf::new() } else { folder.to_path_buf() };
    let enter = if enter.as_os_str().is_empty() { String::new() } else { format!("  cd {}\n", enter.display()) };
    let steps: Vec<(&str, &str)> =
        template.steps.iter().map(|step| step.split_once("  # ").unwrap_or((step, ""))).collect();
    let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
    let steps: String = steps
        .iter()
        .map(|(step, remark)| match *remark {
            "" => format!("  {step}\n"),
            remark => format!("  {step:width$}  # {remark}\n"),
        })
        .collect();
    let (count, begin) = (template.files.len(), template.begin);
    format!("{count} files are laid out; the configuration is {}.\n{begin}\n\nNext:\n{enter}{steps}", config.display())
}

#[cfg(test)]
mod tests {
    use tailwater_simulators::klaviyo::DEFAULT_API_KEY;

    use super::*;
    use crate::config::{LoadOptions, check};

    fn template(name: &str) -> &'static Template {
        TEMPLATES.iter().find(|template| template.name == name).unwrap()
    }

    #[test]
    fn what_is_laid_out_is_a_right_configuration() {
        for template in TEMPLATES {
            let folder = tempfile::tempdir().unwrap();
            let project = folder.path().join("new/project");
            lay_out(&project, template.files).unwrap();
            let environment = |name: &str| name.ends_with("_KEY").then(|| "pk".to_owned());
            let checked = check(
                &project.join("tailwater.yaml"),
                &LoadOptions { environment: &environment, ..LoadOptions::default() },
            );
            assert!(checked.problems.is_empty(), "{}: {:?}", template.name, checked.problems);
            assert!(!project.join("state").exists());
        }
    }

    #[test]
    fn the_winback_example_comes_whole() {
        let names: Vec<&str> = template("winback").files.iter().map(|(name, _)| *name).collect();
        for name in [
            "tailwater.yaml",
            "README.md",
            "transforms/ltv.js",
            "lake/commit.sh",
            "lake/ltv_scores/_delta_log/00000000000000000000.json",
        ] {
            assert!(names.contains(&name), "{name} is missing among {names:?}");
        }
    }

    // Issue 10, C3: the list was missing at the simulator, and the steps ended in 289 dead letters.
    #[test]
    fn the_steps_name_the_simulators_key_and_the_list_of_the_example() {
        let (_, transform) = template("winback").files.iter().find(|(name, _)| *name == "transforms/ltv.js").unwrap();
        let transform = std::str::from_utf8(transform).unwrap();
        assert!(transform.contains("WINBACK_LIST = 'WINBCK'"));
        let text = farewell(Path::new("shop"), template("winback"));
        for step in [
            "  cd shop\n",
            &format!("  export KLAVIYO_API_KEY={DEFAULT_API_KEY}  #"),
            "  tailwater simulate klaviyo --list WINBCK=Winback ",
            "  lake/commit.sh orders-v1 ",
        ] {
            assert!(text.contains(step), "{step} is missing in\n{text}");
        }
        assert!(template("winback").files.iter().any(|(name, _)| *name == "lake/commit.sh"));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_written_then() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("transforms")).unwrap();
        fs::write(folder.path().join("transforms/customers.js"), "mine").unwrap();
        let error = lay_out(folder.path(), template("minimal").files).unwrap_err();
        assert!(error.to_string().contains("transforms/customers.js"), "{error}");
        assert_eq!(error.exit(), Exit::Problem);
        assert!(!folder.path().join("tailwater.yaml").exists());
        assert_eq!(fs::read_to_string(folder.path().join("transforms/customers.js")).unwrap(), "mine");
    }

    #[cfg(unix)]
    #[test]
    fn scripts_can_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        lay_out(folder.path(), template("winback").files).unwrap();
        assert_eq!(fs::metadata(folder.path().join("lake/commit.sh")).unwrap().permissions().mode() & 0o100, 0o100);
    }
}
