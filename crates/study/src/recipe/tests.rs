//! Tests of the recipes of studies.

use super::*;

#[test]
fn every_preset_is_valid_and_survives_a_round_trip() {
    for preset in Preset::ALL {
        let recipe = StudyRecipe::preset(preset, &[]).unwrap();
        assert_eq!(recipe.is_sandbox(), preset == Preset::Sandbox);
        let again = parse_toml(preset.name(), &to_toml(&recipe), &[]).unwrap();
        assert_eq!(recipe, again);
    }
}

#[test]
fn the_appendix_recipes_differ_in_their_preferences_only() {
    let paper = StudyRecipe::preset(Preset::Paper, &[]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/paper");
    for (file, format) in [("ultrafeedback.toml", Format::Pairs), ("shp.toml", Format::Shp)] {
        let recipe = StudyRecipe::load(&folder.join(file), &[]).unwrap();
        assert_eq!(recipe.data.format, format, "{file}");
        assert_eq!(recipe.study.annotators, ["human"], "{file}: one source of labels");
        let StudyRecipe { mut study, mut output, mut data, .. } = recipe.clone();
        assert_ne!(study.paper_set, PaperSet::Gair, "{file}");
        study.annotators.clone_from(&paper.study.annotators);
        study.paper_set = PaperSet::Gair;
        output.dir.clone_from(&paper.output.dir);
        assert_eq!((data.max_length, data.preset), (paper.data.max_length, paper.data.preset), "{file}");
        data = paper.data.clone();
        assert_eq!(StudyRecipe { study, output, data, ..recipe }, paper, "{file}");
    }
}

#[test]
fn the_paper_recipe_has_the_values_of_its_appendix() {
    let recipe = StudyRecipe::preset(Preset::Paper, &[]).unwrap();
    let train = &recipe.train;
    assert_eq!((train.learning_rate, train.batch_size, train.warmup_ratio), (5e-7, 16, 0.1));
    assert_eq!(
        (train.betas, train.eps, train.scheduler),
        ([0.9, 0.999], 1e-8, trainer::recipe::Scheduler::Linear)
    );
    assert_eq!(recipe.study.annotators, ["human", "gpt-4-turbo"]);
    assert_eq!(recipe.judge.name(), "gpt-4");
    assert_eq!((recipe.study.seeds, recipe.study.sweep_betas.len()), (4, 11));
}

#[test]
fn a_recipe_of_one_run_is_sent_to_its_program() {
    let run = "[model]\npath = \"m\"\n[data]\npath = \"p.jsonl\"\n[output]\ndir = \"o\"\n";
    let refused = parse_toml::<StudyRecipe>("run.toml", run, &[]).unwrap_err().to_string();
    assert!(
        refused.starts_with("run.toml: study is missing") && refused.contains("`pref-train"),
        "{refused}"
    );
    let study = Preset::Sandbox.text();
    let refused = trainer::recipe::Recipe::parse("study.toml", study, &[]).unwrap_err().to_string();
    assert!(refused.starts_with("study.toml:") && refused.contains("`study --recipe FILE`"), "{refused}");
}

fn refusal(change: &str) -> String {
    StudyRecipe::preset(Preset::Sandbox, &[change.to_owned()]).unwrap_err().to_string()
}

#[test]
fn a_loss_may_have_its_own_betas() {
    let changes = ["study.losses=[\"dpo\", \"simpo\"]", "study.loss_betas={ simpo = [2.0, 2.5] }"];
    let recipe = StudyRecipe::preset(Preset::Sandbox, &changes.map(str::to_owned)).unwrap();
    let betas = |loss| recipe.study.betas_of(loss).iter().map(|beta| beta.get()).collect::<Vec<_>>();
    assert_eq!((betas(LossKind::Dpo), betas(LossKind::Simpo)), (vec![0.1], vec![2.0, 2.5]));
    assert_eq!(recipe, parse_toml("again", &to_toml(&recipe), &[]).unwrap());
    assert!(refusal("study.loss_betas={ simpo = [] }").contains("study.loss_betas is empty"));
    assert!(refusal("study.loss_betas={ simpoo = [1.0] }").contains("did you mean \"simpo\""));
    assert!(refusal("study.loss_betas={ simpo = [-1.0] }").contains("above 0"));
}

#[test]
fn keys_of_single_runs_are_refused() {
    for (change, reason) in [
        ("train.max_steps=10", "train.max_steps has no place in a study"),
        ("train.epochs=1.5", "train.epochs is 1.5; it must be a whole number in a study"),
        ("train.early_stopping.patience=1", "train.early_stopping has no place in a study"),
        ("data.count=10", "data.count is for training alone"),
        ("data.weight=10", "data.weight is for training alone"),
        ("checkpoints.best=eval/loss", "unknown key checkpoints"),
    ] {
        let refused = refusal(change);
        assert!(refused.contains(reason), "{refused}");
    }
}
