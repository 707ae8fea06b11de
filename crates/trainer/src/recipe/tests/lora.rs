//! Tests of the keys of low-rank adapters.

use policy_model::{Lora, Scaling, Targets};

use super::*;
use crate::Trained;
use crate::recipe::LoraSection;

#[test]
fn lora_targets_must_be_projections() {
    assert_eq!(parse(SMALLEST, &[]).unwrap().lora.build().unwrap(), Trained::All);
    let recipe = set(&["lora.rank=8", "lora.alpha=32", "lora.targets=[\"up_proj\",\"q_proj\"]"]);
    let lora = Lora::new(8, 32.0, Targets::names(["up_proj", "q_proj"]));
    assert_eq!(recipe.lora.build().unwrap(), Trained::Adapters(lora));
    let refused = refusal("lora.targets=[\"query\"]");
    assert_eq!(
        refused,
        "lora.targets are [\"query\"], but query is unknown; known projections: q_proj, k_proj, v_proj, qkv_proj, \
         o_proj, dense, gate_proj, up_proj, gate_up_proj, down_proj, fc1, fc2, c_fc, c_proj"
    );
    assert_eq!(refusal("lora.targets=[]"), "lora.targets is empty; list at least one projection");
    let twice = refusal("lora.targets=[\"q_proj\",\"q_proj\"]");
    assert!(twice.contains("list each once"), "{twice}");
    assert_eq!(refusal("lora.alpha=0"), "lora.alpha is 0.0; it must be above 0");
    assert!(refusal("lora.targets=\"(\"").contains("is no regular expression"));

    let keys = ["lora.rank=4", "lora.targets=\"all-linear\"", "lora.use_rslora=true", "lora.use_dora=true"];
    let recipe = set(&[&keys[..], &["lora.modules_to_save=[\"lm_head\"]"]].concat());
    let mut lora = Lora::new(4, 16.0, Targets::AllLinear);
    (lora.scaling, lora.use_dora) = (Scaling::RootRank, true);
    lora.modules_to_save = vec!["lm_head".to_owned()];
    assert_eq!(recipe.lora.build().unwrap(), Trained::Adapters(lora));
    // Digests of runs do not change.
    let text = serde_json::to_string(&LoraSection::default()).unwrap();
    assert_eq!(text, r#"{"rank":0,"alpha":16.0,"targets":["q_proj","v_proj"]}"#);
}

#[test]
fn ranks_scales_and_dropout_of_modules_are_read() {
    let keys = [
        "lora.rank=4",
        "lora.dropout=0.05",
        "lora.rank_pattern={ \"layers\\\\.[01]\\\\..*\" = 16, q_proj = 2 }",
        "lora.alpha_pattern={ v_proj = 0.5 }",
    ];
    let Trained::Adapters(lora) = set(&keys).lora.build().unwrap() else { panic!("adapters are trained") };
    assert_eq!(lora.dropout, 0.05);
    assert_eq!(set(&["lora.init=a"]).model.reference.as_deref(), Some("adapter"));
    assert_eq!(set(&["lora.init=a", "model.reference=base"]).model.reference.as_deref(), Some("base"));
    assert_eq!(lora.rank_of("model.layers.1.self_attn.q_proj"), 16);
    assert_eq!(lora.rank_of("model.layers.2.self_attn.q_proj"), 2);
    assert_eq!(lora.rank_of("model.layers.2.mlp.up_proj"), 4);
    assert_eq!(lora.scale_of("model.layers.2.self_attn.v_proj"), 0.125);
    let again = parse(&set(&keys).to_toml(), &[]).unwrap();
    assert_eq!(again.lora, set(&keys).lora);

    let refusal_of = |change: &str| parse(SMALLEST, &["lora.rank=4", change]).unwrap_err().to_string();
    for (change, says) in [
        ("lora.dropout=1.0", "lora.dropout is 1.0; it must be in [0, 1)"),
        ("lora.dropout=-0.1", "lora.dropout is -0.1; it must be in [0, 1)"),
        (
            "lora.rank_pattern={ q_proj = 0 }",
            "lora.rank_pattern has 0 for \"q_proj\"; give a rank of at least 1",
        ),
        ("lora.rank_pattern={ \"(\" = 2 }", "is no regular expression"),
        ("lora.alpha_pattern={ q_proj = -1 }", "lora.alpha_pattern is -1.0; it must be above 0"),
    ] {
        let refused = refusal_of(change);
        assert!(refused.contains(says), "{change}: {refused}");
    }
    for change in
        ["lora.dropout=0.1", "lora.rank_pattern={ q_proj = 2 }", "lora.alpha_pattern={ q_proj = 2 }"]
    {
        let refused = refusal(change);
        assert!(refused.contains("applies to adapters only; set lora.rank"), "{change}: {refused}");
    }
}
