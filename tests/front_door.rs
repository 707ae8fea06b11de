//! What a person sees of the programs before a result: names, help, colors, progress, the log, errors.

mod bench;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use bench::Bench;
use files::fault;
use test_support::SMALL_SANDBOX;

const PREFLAB: &str = env!("CARGO_BIN_EXE_preflab");
const TRAIN: &str = env!("CARGO_BIN_EXE_pref-train");
const RQ1: &str = env!("CARGO_BIN_EXE_rq1");
const PROGRAMS: [(&str, &str); 11] = [
    ("preflab", PREFLAB),
    ("pref-train", TRAIN),
    ("study", env!("CARGO_BIN_EXE_study")),
    ("rq1", RQ1),
    ("rq2", env!("CARGO_BIN_EXE_rq2")),
    ("rq3", env!("CARGO_BIN_EXE_rq3")),
    ("rq4", env!("CARGO_BIN_EXE_rq4")),
    ("audit", env!("CARGO_BIN_EXE_audit")),
    ("mtbench", env!("CARGO_BIN_EXE_mtbench")),
    ("annotate", env!("CARGO_BIN_EXE_annotate")),
    ("agreement", env!("CARGO_BIN_EXE_agreement")),
];

/// Returns a command whose output depends on its arguments alone.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for variable in ["RUST_LOG", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_program_prints_its_own_name_and_version() {
    for (name, program) in PROGRAMS {
        let output = command(program, &["-V"]).output().unwrap();
        assert_eq!(text(&output.stdout), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_names_the_question_and_shows_an_example() {
    for (name, program) in PROGRAMS {
        let help = text(&command(program, &["--help"]).output().unwrap().stdout);
        assert!(name == "preflab" || help.contains("Example"), "{name}: {help}");
        assert!(name == "preflab" || help.contains("--color <WHEN>"), "{name}: {help}");
    }
    let help = text(&command(RQ1, &["--help"]).output().unwrap().stdout);
    assert!(help.starts_with("Does training on preferences help"), "{help}");
}

#[test]
fn colors_follow_argument_and_environment() {
    let is_colored = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = command(TRAIN, &[&["--recipe", "absent.toml"], arguments].concat());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        output.stderr.contains(&0x1b)
    };
    assert!(!is_colored(&[], &[]), "not a terminal");
    assert!(is_colored(&["--color", "always"], &[]));
    assert!(is_colored(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!is_colored(&["--color=never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!is_colored(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    let help = command(TRAIN, &["--help", "--color", "always"]).output().unwrap();
    assert!(help.stdout.contains(&0x1b), "the help, too");
}

#[test]
fn a_command_of_preflab_is_the_program() {
    let plan = ["--preset", "sandbox", "--plan", "--out", "no-such-folder"];
    let of_program = command(env!("CARGO_BIN_EXE_rq2"), &plan).output().unwrap();
    let of_preflab = command(PREFLAB, &[&["rq2"], &plan[..]].concat()).output().unwrap();
    assert!(of_program.status.success(), "{of_program:?}");
    assert_eq!(of_preflab.stdout, of_program.stdout);
    let refused = command(PREFLAB, &["train", "--recipe", "absent.toml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("cannot read recipe absent.toml"), "{refused:?}");
}

#[test]
fn a_recipe_of_another_program_is_recognized() {
    let bench = Bench::new();
    let run = command(RQ1, &["--recipe", "recipe.toml"]).current_dir(bench.folder.path()).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("`pref-train --recipe FILE`"), "{run:?}");
    let of_study = concat!(env!("CARGO_MANIFEST_DIR"), "/../recipes/sandbox.toml");
    let refused = command(TRAIN, &["--recipe", of_study]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("`study --recipe FILE`"), "{refused:?}");
}

/// Runs RQ1 in a small sandbox.
fn small_study(bench: &Bench, arguments: &[&str]) -> Output {
    let mut command = command(RQ1, &["--preset", "sandbox", "--out", "study", "--jobs", "2"]);
    for setting in SMALL_SANDBOX {
        command.args(["--set", setting]);
    }
    let output = command.args(arguments).current_dir(bench.folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

#[test]
fn a_study_logs_to_its_folder_and_shows_the_path_once() {
    let bench = Bench::new();
    let shown = text(&small_study(&bench, &[]).stderr);
    assert_eq!(shown.matches("log: study/log.txt").count(), 1, "{shown}");
    assert!(!shown.contains("training DPO") && shown.lines().count() < 20, "{shown}");
    assert!(shown.contains("report: study/report.html"), "{shown}");
    let log = fs::read_to_string(bench.path("study/log.txt")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("INFO training ")).count(), 4, "{log}");
    assert!(log.contains("[rank 1] "), "the log has what the workers did: {log}");

    fs::remove_dir_all(bench.path("study")).unwrap();
    let verbose = text(&small_study(&bench, &["--verbose"]).stderr);
    assert!(verbose.contains("INFO training DPO"), "{verbose}");
}

#[test]
fn a_run_shows_decisions_about_its_data() {
    let bench = Bench::new();
    let long = "a .".repeat(40);
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", &long, "a ."), (&long, "c .", "a .")]);
    let settings = ["--recipe", "recipe.toml", "--set", "data.max_length=40"];
    let output = command(TRAIN, &settings).current_dir(bench.folder.path()).output().unwrap();
    let shown = text(&output.stderr);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("2 of 3 pairs tokenized") && shown.contains("1 pair dropped"), "{shown}");
    assert!(shown.contains("WARN 1 of 3 pairs leave no room"), "{shown}");
    assert!(shown.contains("log: out/log.txt"), "{shown}");
    assert!(fs::read_to_string(bench.path("out/log.txt")).unwrap().contains("2 of 3 pairs tokenized"));
}

#[cfg(unix)]
#[test]
fn a_design_needs_neither_model_nor_data() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--preset", "paper", "--design", "--studies", "20"];
    let output = command(RQ1, &arguments).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tables = text(&output.stdout);
    assert!(tables.starts_with("What a study of 4 seeds × 80 questions finds"), "{tables}");
    assert!(tables.contains("The fewest judge calls: "), "{tables}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    let output = command(RQ1, &[&arguments[..], &["--like", "."]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = command(RQ1, &["--preset", "paper", "--like", "."]).output().unwrap();
    assert!(text(&output.stderr).contains("--design"), "{}", text(&output.stderr));
}

#[test]
fn an_interruption_is_acknowledged_at_once() {
    let bench = Bench::new();
    let hold = bench.path("hold");
    let mut child = command(TRAIN, &["--recipe", "recipe.toml"])
        .current_dir(bench.folder.path())
        .env(fault::VARIABLE, format!("trainer.step=1:{}", hold.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !hold.join("held").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run ends before its first step");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    // The held process makes no step, and answers all the same.
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap).skip_while(|line| !line.starts_with("stopping after"));
    assert!(lines.next().is_some(), "no answer");
    fs::write(hold.join("released"), "").unwrap();
    assert!(lines.any(|line| line.starts_with("error: stopped after step")), "the run ends with its state");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
