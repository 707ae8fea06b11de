//! Fetching from a server on this machine that speaks as the Hub does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hub::{Hub, HubError, RepoId, RepoKind};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_that_nobody_may_see";

/// What the server does and has heard.
#[derive(Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    /// The only token that is let in, if any.
    token: Option<String>,
    /// The etag of every file, instead of a digest.
    etag: Option<String>,
    /// The commit of every answer, instead of the usual one.
    commit: Option<String>,
    /// Where the contents of files are, if not here.
    redirect: Option<String>,
    /// Whether the next body breaks off in the middle.
    breaks_off: Mutex<u32>,
    heard: Mutex<Vec<String>>,
}

struct Server {
    address: String,
    served: Arc<Served>,
}

impl Server {
    fn start(served: Served) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let served = Arc::new(served);
        let shared = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { address, served }
    }

    fn heard(&self) -> Vec<String> {
        self.served.heard.lock().expect("not poisoned").clone()
    }

    fn hub(&self, cache: &Path, variables: &[(&str, &str)]) -> Hub {
        Hub::from_environment(|name| match name {
            "HF_ENDPOINT" => Some(self.address.clone()),
            "HF_HUB_CACHE" => Some(cache.display().to_string()),
            _ => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        })
    }
}

fn answer(mut stream: TcpStream, served: &Served) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let path = lines[0].split_whitespace().nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| {
            let start = format!("{name}: ");
            lines.iter().find_map(|line| {
                line.to_lowercase().starts_with(&start).then(|| line[start.len()..].to_owned())
            })
        };
        let range = header("range").unwrap_or_default();
        served.heard.lock().expect("not poisoned").push(format!("{path} {range}"));
        if header("authorization").is_some() {
            served.heard.lock().expect("not poisoned").push("a token".to_owned());
        }
        let allowed = served
            .token
            .as_ref()
            .is_none_or(|token| header("authorization") == Some(format!("Bearer {token}")));
        if !allowed {
            let code = if header("authorization").is_some() { "403 Forbidden" } else { "401 Unauthorized" };
            let head = format!("HTTP/1.1 {code}\r\nx-error-code: GatedRepo\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            continue;
        }
        if path.starts_with("/api/") {
            let known = path.starts_with("/api/datasets/owner/set/revision/");
            let siblings: Vec<String> =
                served.files.keys().map(|name| format!("{{\"rfilename\": \"{name}\"}}")).collect();
            let commit = served.commit.as_deref().unwrap_or(COMMIT);
            let body = format!("{{\"sha\": \"{commit}\", \"siblings\": [{}]}}", siblings.join(", "));
            let status = if known { "200 OK" } else { "404 Not Found" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            continue;
        }
        let prefix = format!("/datasets/owner/set/resolve/{COMMIT}/");
        let Some(content) = path.strip_prefix(&prefix).and_then(|name| served.files.get(name)) else {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            continue;
        };
        if let Some(elsewhere) = &served.redirect {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: {elsewhere}{path}\r\nx-repo-commit: {COMMIT}\r\nx-linked-etag: \"{}\"\r\ncontent-length: 0\r\n\r\n",
                "d".repeat(64)
            );
            let _ = stream.write_all(head.as_bytes());
            continue;
        }
        let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap_or(0);
        let to: usize = to.parse().map_or(content.len(), |to: usize| to + 1);
        let part = &content[from..to];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\netag: \"{}\"\r\nx-repo-commit: {}\r\ncontent-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\n\r\n",
            served.etag.clone().unwrap_or_else(|| format!("{:040x}", content[0])),
            served.commit.as_deref().unwrap_or(COMMIT),
            to - 1,
            content.len(),
            part.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let mut left = served.breaks_off.lock().expect("not poisoned");
        if *left > 0 && part.len() > 1 {
            *left -= 1;
            let _ = stream.write_all(&part[..part.len() / 2]);
            return;
        }
        drop(left);
        let _ = stream.write_all(part);
    }
}

fn set() -> BTreeMap<String, Vec<u8>> {
    let file = |name: &str, byte: u8| (name.to_owned(), vec![byte; 100_000]);
    [
        file("README.md", b'r'),
        file("data/train-00000-of-00002.parquet", b'a'),
        file("data/train-00001-of-00002.parquet", b'b'),
        file("data/test-00000-of-00001.parquet", b'c'),
        file("../../escape.parquet", b'x'),
    ]
    .into()
}

fn id(text: &str) -> RepoId {
    RepoId::parse(RepoKind::Dataset, text).expect("an id")
}

#[test]
fn what_is_wanted_comes_once_and_offline_from_the_cache() {
    let server = Server::start(Served { files: set(), ..Served::default() });
    let cache = tempfile::tempdir().expect("a temporary folder");
    let path = server.hub(cache.path(), &[]).fetch(&id("owner/set")).expect("fetched");
    assert!(
        path.ends_with(format!("datasets--owner--set/snapshots/{COMMIT}/data/train-*.parquet")),
        "{path:?}"
    );
    let folder = path.parent().expect("a folder");
    let read = |name: &str| fs::read(folder.join(name)).expect("fetched");
    assert_eq!(read("train-00001-of-00002.parquet"), vec![b'b'; 100_000]);
    assert!(!folder.join("test-00000-of-00001.parquet").exists(), "nobody asked for it");
    let bodies = server.heard().len();
    assert_eq!(server.hub(cache.path(), &[]).fetch(&id("owner/set")).expect("cached"), path);
    assert_eq!(server.heard().len(), bodies + 1, "only the revision was asked for");
    let offline = server.hub(cache.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.fetch(&id("owner/set")).expect("cached"), path);
    // By its commit, too, and pinned to it online.
    assert_eq!(offline.fetch(&id(&format!("owner/set@{COMMIT}"))).expect("cached"), path);
    assert_eq!(server.heard().len(), bodies + 1);
    for missing in ["owner/other", "owner/set@v2"] {
        let error = offline.fetch(&id(missing)).expect_err("not in the cache").to_string();
        assert!(error.contains("HF_HUB_OFFLINE is set"), "{error}");
    }
}

#[test]
fn what_broke_off_goes_on_where_it_stopped() {
    let served = Served { files: set(), breaks_off: Mutex::new(1), ..Served::default() };
    let server = Server::start(served);
    let cache = tempfile::tempdir().expect("a temporary folder");
    let wanted = id("owner/set:data/test-00000-of-00001.parquet");
    let path = server.hub(cache.path(), &[]).fetch(&wanted).expect("fetched in the end");
    assert_eq!(fs::read(path).expect("a file"), vec![b'c'; 100_000]);
    assert!(server.heard().iter().any(|line| line.ends_with("bytes=50000-")), "{:?}", server.heard());
}

#[test]
fn gated_sets_say_how_to_get_access_and_tokens_never_show() {
    let server = Server::start(Served { files: set(), token: Some(TOKEN.to_owned()), ..Served::default() });
    let cache = tempfile::tempdir().expect("a temporary folder");
    for variables in [&[][..], &[("HF_TOKEN", "hf_of_somebody_else")]] {
        let error = server.hub(cache.path(), variables).fetch(&id("owner/set")).expect_err("gated");
        assert!(matches!(error, HubError::Gated { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("accept its terms") && said.contains("/datasets/owner/set"), "{said}");
        assert!(!format!("{said}{error:?}").contains("hf_of_somebody_else"));
    }
    let hub = server.hub(cache.path(), &[("HF_TOKEN", TOKEN)]);
    hub.fetch(&id("owner/set")).expect("let in");
    assert!(!format!("{hub:?}").contains(TOKEN));
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::start(Served { files: set(), ..Served::default() });
    let cache = tempfile::tempdir().expect("a temporary folder");
    let hub = server.hub(cache.path(), &[]);
    assert!(matches!(hub.fetch(&id("owner/nothing")), Err(HubError::NotFound { .. })));
    assert!(matches!(hub.fetch(&id("owner/set:data/x.parquet")), Err(HubError::NoSuchFile { .. })));
    let nobody = Hub::from_environment(|name| match name {
        "HF_ENDPOINT" => Some("http://127.0.0.1:1".to_owned()),
        "HF_HUB_CACHE" => Some(cache.path().display().to_string()),
        _ => None,
    });
    let error = nobody.fetch(&id("owner/set")).expect_err("nobody there").to_string();
    assert!(error.contains("HF_HUB_OFFLINE=1"), "{error}");
}

#[test]
fn a_redirect_gets_no_token_and_names_no_file() {
    let store =
        Server::start(Served { files: set(), etag: Some("an-etag-of-its-own".into()), ..Served::default() });
    let redirect = Some(store.address.clone());
    let server = Server::start(Served { files: set(), redirect, ..Served::default() });
    let cache = tempfile::tempdir().expect("a temporary folder");
    let hub = server.hub(cache.path(), &[("HF_TOKEN", TOKEN)]);
    let path = hub.fetch(&id("owner/set:data/test-00000-of-00001.parquet")).expect("fetched");
    assert_eq!(fs::read(&path).expect("a file"), vec![b'c'; 100_000]);
    assert!(cache.path().join("datasets--owner--set/blobs").join("d".repeat(64)).is_file());
    assert!(server.heard().contains(&"a token".to_owned()));
    assert_eq!(store.heard().len(), 2, "{:?}", store.heard());
    assert!(!store.heard().contains(&"a token".to_owned()));
}

#[test]
fn a_hostile_server_cannot_choose_a_path() {
    let out = "../../../../out";
    for (etag, commit) in [(Some(out), None), (None, Some(out)), (Some(""), None), (None, Some("main"))] {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let served = Served { files: set(), etag: text(etag), commit: text(commit), ..Served::default() };
        let server = Server::start(served);
        let root = tempfile::tempdir().expect("a temporary folder");
        let error =
            server.hub(&root.path().join("a/cache"), &[]).fetch(&id("owner/set")).expect_err("refused");
        assert!(matches!(error, HubError::NoDigest { .. }) && error.is_bad_input(), "{error}");
        let mut files = Vec::new();
        let mut folders = vec![root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        assert_eq!(files, Vec::<std::path::PathBuf>::new(), "nothing is written");
    }
}

#[test]
fn no_error_text_repeats_its_cause() {
    use std::error::Error as _;
    let error = HubError::Cache { path: "x".into(), source: std::io::Error::other("the cause") };
    assert_eq!(error.source().expect("it has a cause").to_string(), "the cause");
    assert!(!error.to_string().contains("the cause"), "{error}");
}
