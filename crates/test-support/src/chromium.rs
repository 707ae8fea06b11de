//! Pages in a headless Chromium.

use std::path::Path;
use std::process::Command;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A Chromium of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Chromium {
    name: &'static str,
}

impl Chromium {
    /// Returns the first browser that runs, or prints that `test` is skipped and returns `None`.
    #[expect(clippy::print_stderr, reason = "a skipped test prints it")]
    pub fn find(test: &str) -> Option<Self> {
        let runs = |name: &&str| {
            Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
        };
        let found = NAMES.into_iter().find(runs).map(|name| Self { name });
        if found.is_none() {
            eprintln!("SKIPPED {test}: none of {NAMES:?} is installed");
        }
        found
    }

    /// The elements of a page once its scripts have run, as HTML. `fragment` is what follows the page's name in its
    /// address, with its `#`, or nothing. The profile is in the page's folder, so that local storage persists.
    ///
    /// # Panics
    ///
    /// If the browser fails.
    pub fn visit(self, page: &Path, fragment: &str) -> String {
        let profile = page.parent().expect("a page lies in a folder").join("profile");
        let output = Command::new(self.name)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--virtual-time-budget=3000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}{fragment}", page.display()))
            .output()
            .expect("it ran before");
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a page is UTF-8")
    }
}
