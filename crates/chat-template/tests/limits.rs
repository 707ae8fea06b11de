//! Templates that would take all time or memory end with one error.

use std::time::{Duration, Instant};

use chat_template::{Date, Inputs, Template};

const BOMBS: [&str; 30] = [
    "{{ '{:>77777777777}'.format('y') }}",
    "{{ '%88888888888s' % 'y' }}",
    "{{ '%.88888888888f' % 1.5 }}",
    "{{ '%*d' % (88888888888, 1) }}",
    "{{ 'y'.center(88888888888) }}",
    "{{ 'y'.zfill(88888888888) }}",
    "{{ 'a\\tb'.expandtabs(88888888888) }}",
    "{{ [[1]] | tojson(indent=8000000000) }}",
    "{{ 'y' | indent(88888888888, true) }}",
    "{{ 'y' | center(88888888888) }}",
    "{{ [1, 2] | slice(8888888888) | list }}",
    "{{ [1, 2] | batch(8888888888, 0) | list }}",
    "{% for i in [0] * 8000000000000000000 %}{% endfor %}",
    "{% for i in 'ab' * 8000000000000000000 %}{% endfor %}",
    "{% for i in range(2000000000) %}{% endfor %}",
    "{% for i in range(90000) %}{% for j in range(90000) %}y{% endfor %}{% endfor %}",
    "{% macro g() %}{{ g() }}{% endmacro %}{{ g() }}",
    "{% macro g(n) %}{{ g(n) ~ g(n) }}{% endmacro %}{{ g(1) }}",
    "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t.replace('b', ns.t) %}{% endfor %}",
    "{% set ns = namespace(t=['ab']) %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(t=['ab']) %}{% for i in range(99) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t }}",
    "{% set ns = namespace(t=[]) %}{% for i in range(9999) %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t == ns.t }}",
    "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t.join([ns.t, ns.t]) %}{% endfor %}",
    "{% set ns = namespace(t=3) %}{% for i in range(99) %}{% set ns.t = ns.t * ns.t %}{% endfor %}",
    "{{ 9 ** 9 ** 9 }}",
    "{% set l = ('y' * 9000000) | list %}{{ l | unique | list }}",
    "{% set l = range(99999) | list %}{% for x in l %}{{ x in l[::-1] }}{% endfor %}",
    "{% for i in range(99999) %}{% set x = ('y' * 999999).upper() %}{% endfor %}",
];

#[test]
fn expensive_templates_end_early() {
    // Threads of a pool have no more than that.
    let run = || {
        for source in BOMBS {
            let start = Instant::now();
            let error = Template::parse(source).and_then(|t| t.render(&Inputs::default(), Date::Unset));
            let error = error.expect_err(source).to_string();
            assert!(start.elapsed() < Duration::from_secs(5), "{source} took {:?}", start.elapsed());
            assert!(error.starts_with("line 1: ") && error.len() < 200, "{source}: {error}");
            eprintln!("{:>6.1} ms  {error}", start.elapsed().as_secs_f64() * 1e3);
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic");
}

/// One template of each kind.
const PUBLISHED_BOMBS: [&str; 8] = [
    "{{ '{:>99999999999}'.format('x') }}",
    "{{ messages | tojson(indent=9000000000) }}",
    "{{ 'x' | indent(99999999999, true) }}",
    "{{ [1, 2, 3] | slice(9999999999) | list }}",
    "{{ [1, 2, 3][::-9223372036854775808] }}",
    "{% for i in [0] * 9000000000000000000 %}{% endfor %}",
    "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
];

#[test]
fn one_bomb_of_each_kind_ends_in_one_error() {
    let messages = serde_json::from_str(r#"[{"role": "user", "content": "x"}]"#).expect("messages");
    let inputs = Inputs { messages, ..Inputs::default() };
    for source in PUBLISHED_BOMBS {
        let start = Instant::now();
        let error = Template::parse(source).and_then(|t| t.render(&inputs, Date::Unset)).expect_err(source);
        assert!(start.elapsed() < Duration::from_secs(5), "{source} took {:?}", start.elapsed());
        let error = error.to_string();
        assert!(error.starts_with("line 1: ") && !error.contains('\n'), "{source}: {error}");
    }
}

#[test]
fn slices_beyond_the_ends_are_pythons() {
    for (source, expected) in [
        ("{{ [1, 2, 3][::-99999] }}", "[3]"),
        ("{{ [1, 2, 3][::99999] }}", "[1]"),
        ("{{ [1, 2, 3][-9223372036854775808:99999999999999999999] }}", "[1, 2, 3]"),
        ("{{ 'abc'[5:1:-1] ~ 'abc'[::-1] }}", "ccba"),
    ] {
        let rendered = Template::parse(source).and_then(|t| t.render(&Inputs::default(), Date::Unset));
        assert_eq!(rendered.expect(source).text, expected, "{source}");
    }
}

#[test]
fn deep_nesting_in_the_source_is_refused() {
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        "{% if 1 %}".repeat(100_000),
        format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)),
        format!("{{{{ a{} }}}}", ".b".repeat(100_000)),
    ] {
        let run = move || {
            let parsed = Template::parse(&source);
            assert!(parsed.and_then(|t| t.render(&Inputs::default(), Date::Unset)).is_err());
        };
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(run)
            .expect("a thread")
            .join()
            .expect("no panic");
    }
}
