//! The examples that `tailwater init` can lay out.

/// An example under `deploy/examples`, as `build.rs` found it.
pub struct Template {
    pub name: &'static str,
    /// What it is, for the help.
    pub summary: &'static str,
    /// What to do first.
    pub begin: &'static str,
    /// Commands to go on with, some with `  # ` and a remark.
    pub steps: &'static [&'static str],
    pub files: &'static [(&'static str, &'static [u8])],
}

include!(concat!(env!("OUT_DIR"), "/templates.rs"));
