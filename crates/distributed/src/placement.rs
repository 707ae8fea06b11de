//! The rank and the rendezvous of a process, from the environment variables that launchers set.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::str::FromStr;

use torch_ext::distributed::Rank;

use crate::error::DistributedError;

/// The default port of the rendezvous, as for torchrun.
const DEFAULT_PORT: u16 = 29500;
/// The first port for jobs of a SLURM cluster; the job's number is added, since several jobs may share a machine.
const SLURM_PORTS: u16 = 20_000;

/// The rank of a process and the address at which the ranks connect.
///
/// ```
/// use distributed::Placement;
///
/// let set = [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node-a"), ("MASTER_PORT", "29400")];
/// let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
/// let placement = Placement::from_environment(find)?.expect("several processes");
/// assert_eq!((placement.rank.index(), placement.rank.world_size(), placement.local_rank), (3, 4, 1));
/// assert_eq!((placement.host.as_str(), placement.port), ("node-a", 29400));
/// assert_eq!(Placement::from_environment(|_| None)?, None, "a single process");
/// # Ok::<(), distributed::DistributedError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The rank of this process.
    pub rank: Rank,
    /// The index of this process on its machine, which is the index of its GPU.
    pub local_rank: usize,
    /// The machine of rank 0.
    pub host: String,
    /// The port of rank 0 on that machine.
    pub port: u16,
    /// What the ranks of one run have in common, and others do not know.
    pub token: Token,
}

/// A secret, or at least a name, of one run. The keys of its store start with a digest of it, so that another run or a
/// stranger at the same port has other keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The environment variable that hands a token over.
    pub const VARIABLE: &'static str = "PREFERENCE_RUN_TOKEN";

    /// Returns a token that nobody can guess.
    pub fn random() -> Self {
        // Its keys are from the system's source of randomness.
        let state = RandomState::new();
        Self((0..4_u8).map(|part| format!("{:016x}", state.hash_one(part))).collect())
    }

    /// Returns the text to hand over.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Returns the prefix of keys in a store.
    pub(crate) fn prefix(&self) -> String {
        format!("run-{}", &blake3::hash(self.0.as_bytes()).to_hex()[..32])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Placement {
    /// Reads the variables of torchrun (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), of SLURM's `srun` or
    /// of Open MPI's `mpirun`; `variable` looks up a variable. Returns `None` for a single process.
    ///
    /// # Errors
    ///
    /// [`DistributedError::Environment`] if a variable is missing while others are set, or is not a number in its range.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, DistributedError> {
        let environment = Environment { variable: &variable };
        let launcher = LAUNCHERS.iter().find(|launcher| environment.is_started_by(launcher));
        let Some(launcher) = launcher else { return Ok(None) };
        let (index, world_size) =
            (environment.number(launcher.rank)?, environment.number(launcher.world_size)?);
        if world_size == 1 && index == 0 {
            return Ok(None);
        }
        let rank = Rank::new(index, world_size).map_err(|_| DistributedError::Environment {
            variable: launcher.rank.to_owned(),
            found: Some(index.to_string()),
            remedy: format!(
                "ranks of {} = {world_size} count from 0 to {}",
                launcher.world_size,
                world_size.max(1) - 1
            ),
        })?;
        let local_rank = match (environment.variable)(launcher.local_rank) {
            Some(_) => environment.number::<u16>(launcher.local_rank)?.into(),
            None => rank.index(),
        };
        let (host, port) = environment.rendezvous(launcher, rank)?;
        Ok(Some(Self { rank, local_rank, host, port, token: environment.token() }))
    }
}

/// The variables that a launcher sets.
struct Launcher {
    rank: &'static str,
    world_size: &'static str,
    local_rank: &'static str,
    /// A variable that must be set, too: a SLURM batch script has the variables of its tasks without being one.
    step: Option<&'static str>,
}

const SLURM_STEP: &str = "SLURM_STEP_ID";

const LAUNCHERS: [Launcher; 3] = [
    Launcher { rank: "RANK", world_size: "WORLD_SIZE", local_rank: "LOCAL_RANK", step: None },
    Launcher {
        rank: "SLURM_PROCID",
        world_size: "SLURM_NTASKS",
        local_rank: "SLURM_LOCALID",
        step: Some(SLURM_STEP),
    },
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world_size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        step: None,
    },
];

struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Environment<'_> {
    fn is_started_by(&self, launcher: &Launcher) -> bool {
        let is_set = |name: &str| (self.variable)(name).is_some();
        (is_set(launcher.rank) || is_set(launcher.world_size)) && launcher.step.is_none_or(is_set)
    }

    fn number<T: FromStr>(&self, variable: &str) -> Result<T, DistributedError> {
        let found = (self.variable)(variable);
        let parsed = found.as_deref().and_then(|text| text.trim().parse().ok());
        parsed.ok_or_else(|| DistributedError::Environment {
            variable: variable.to_owned(),
            remedy: match &found {
                Some(_) => "give a whole number below 65536".to_owned(),
                None => "set it like the others, or start the processes with --nproc-per-node, torchrun, srun or mpirun"
                    .to_owned(),
            },
            found,
        })
    }

    /// Returns the token of [`Token::VARIABLE`], or the name that the launcher gives to the job.
    fn token(&self) -> Token {
        let names = [Token::VARIABLE, "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"];
        Token(names.iter().find_map(|name| (self.variable)(name)).unwrap_or_default())
    }

    /// Returns `MASTER_ADDR` and `MASTER_PORT`, or values derived from the launcher's other variables.
    fn rendezvous(&self, launcher: &Launcher, rank: Rank) -> Result<(String, u16), DistributedError> {
        let text = |name: &str| (self.variable)(name).filter(|text| !text.trim().is_empty());
        let is_slurm = launcher.step == Some(SLURM_STEP);
        let of_slurm = || text("SLURM_STEP_NODELIST").or_else(|| text("SLURM_JOB_NODELIST"));
        let on_one_machine =
            || text("OMPI_COMM_WORLD_LOCAL_SIZE").is_some_and(|size| size == rank.world_size().to_string());
        let host = text("MASTER_ADDR")
            .or_else(|| of_slurm().filter(|_| is_slurm).map(|nodes| first_host(&nodes)))
            .or_else(|| Some("127.0.0.1".to_owned()).filter(|_| on_one_machine()));
        let host = host.ok_or_else(|| DistributedError::Environment {
            variable: "MASTER_ADDR".to_owned(),
            found: None,
            remedy: "set it on all ranks to the name or address of the machine of rank 0 (127.0.0.1 if all are on one)"
                .to_owned(),
        })?;
        let port = match (text("MASTER_PORT"), text("SLURM_JOB_ID")) {
            (None, Some(job)) if is_slurm => {
                SLURM_PORTS + (job.trim().parse::<u64>().unwrap_or(0) % u64::from(SLURM_PORTS)) as u16
            }
            (None, _) => DEFAULT_PORT,
            (Some(_), _) => self.number("MASTER_PORT")?,
        };
        Ok((host, port))
    }
}

/// Returns the first host of a SLURM host list: `node03` for `node[03-07,12],login`.
fn first_host(nodes: &str) -> String {
    let end = nodes.find([',', '[']).unwrap_or(nodes.len());
    let (name, rest) = nodes.split_at(end);
    match rest.strip_prefix('[') {
        Some(numbers) => {
            let first = numbers.split([',', '-', ']']).next().unwrap_or_default();
            format!("{name}{first}")
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(set: &[(&str, &str)]) -> Result<Option<Placement>, DistributedError> {
        Placement::from_environment(|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(set: &[(&str, &str)]) -> String {
        placement(set).expect_err("cannot be used").to_string()
    }

    #[test]
    fn a_single_process_has_no_placement() {
        assert_eq!(placement(&[]).unwrap(), None);
        assert_eq!(placement(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // A SLURM batch script with four tasks is not a task itself.
        assert_eq!(placement(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
    }

    #[test]
    fn slurm_and_mpirun_variables_are_read() {
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_JOB_ID", "1234567"),
        ];
        let found = placement(&slurm).unwrap().unwrap();
        assert_eq!((found.rank.index(), found.rank.world_size(), found.local_rank), (5, 8, 1));
        assert_eq!(
            (found.host.as_str(), found.port),
            ("gpu07", 20_000 + 1_234_567_u64.rem_euclid(20_000) as u16)
        );
        let mpi = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let found = placement(&mpi).unwrap().unwrap();
        assert_eq!((found.host.as_str(), found.port, found.rank.index()), ("127.0.0.1", 29500, 1));
        let spread = [&mpi[..3], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "1")]].concat();
        assert!(refused(&spread).contains("MASTER_ADDR"));
    }

    #[test]
    fn a_missing_or_invalid_variable_is_named() {
        let here = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "29400")];
        let with = |name: &'static str, value: &'static str| {
            here.iter().map(|&(key, old)| (key, if key == name { value } else { old })).collect::<Vec<_>>()
        };
        assert!(placement(&here).unwrap().is_some());
        assert!(refused(&here[1..]).contains("RANK is not set"));
        assert!(refused(&here[..1]).contains("WORLD_SIZE is not set"));
        assert!(refused(&here[..2]).contains("MASTER_ADDR is not set"));
        assert!(refused(&with("RANK", "2")).contains("RANK is \"2\""));
        assert!(refused(&with("WORLD_SIZE", "two")).contains("WORLD_SIZE is \"two\""));
        assert!(refused(&with("MASTER_PORT", "70000")).contains("MASTER_PORT"));
    }

    #[test]
    fn a_token_comes_from_the_launcher_and_is_never_printed() {
        let here = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")];
        let token = |name, value| placement(&[&here[..], &[(name, value)]].concat()).unwrap().unwrap().token;
        let (given, job) = (token(Token::VARIABLE, "secret"), token("TORCHELASTIC_RUN_ID", "job-7"));
        assert_ne!(given, job);
        assert_ne!(given.prefix(), job.prefix());
        assert!(!format!("{given:?}{}", given.prefix()).contains("secret"));
        assert_ne!(Token::random(), Token::random());
    }

    #[test]
    fn the_first_host_of_a_slurm_list_is_found() {
        for (nodes, first) in
            [("a", "a"), ("a,b", "a"), ("n[3-5]", "n3"), ("n[012,4],x", "n012"), ("cn-1[5]", "cn-15")]
        {
            assert_eq!(first_host(nodes), first);
        }
    }
}
