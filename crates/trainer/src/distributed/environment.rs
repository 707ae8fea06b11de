//! Where a process stands among those that train together, from the variables that launchers set.

use std::str::FromStr;

use torch_ext::distributed::Rank;

use crate::TrainError;

/// Where ranks meet unless somebody says otherwise, as under torchrun.
const DEFAULT_PORT: u16 = 29500;
/// Jobs of one SLURM cluster that share a machine get ports from here on, by their number.
const SLURM_PORTS: u16 = 20_000;

/// Where a process stands among those that train together, and where they meet.
///
/// ```
/// use trainer::Place;
///
/// let set = [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node-a"), ("MASTER_PORT", "29400")];
/// let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
/// let place = Place::from_environment(find)?.expect("several processes");
/// assert_eq!((place.rank.index(), place.rank.world_size(), place.local_rank), (3, 4, 1));
/// assert_eq!((place.host.as_str(), place.port), ("node-a", 29400));
/// assert_eq!(Place::from_environment(|_| None)?, None, "a process on its own");
/// # Ok::<(), trainer::TrainError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of how many processes this is.
    pub rank: Rank,
    /// Which of the processes on its machine: the number of its GPU.
    pub local_rank: usize,
    /// The machine of rank 0.
    pub host: String,
    /// The port there on which rank 0 is found.
    pub port: u16,
}

impl Place {
    /// Reads what torchrun sets (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), or else SLURM's `srun`, or
    /// else Open MPI's `mpirun`; `variable` looks a variable up. `None` where the process is on its own.
    ///
    /// # Errors
    ///
    /// [`TrainError::Environment`] for a variable that is missing beside others, or is no number of its range.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TrainError> {
        let environment = Environment { variable: &variable };
        let launcher = LAUNCHERS.iter().find(|launcher| environment.is_started_by(launcher));
        let Some(launcher) = launcher else { return Ok(None) };
        let (index, world_size) =
            (environment.number(launcher.rank)?, environment.number(launcher.world_size)?);
        if world_size == 1 && index == 0 {
            return Ok(None);
        }
        let rank = Rank::new(index, world_size).map_err(|_| TrainError::Environment {
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
        let (host, port) = environment.meeting_place(launcher, rank)?;
        Ok(Some(Self { rank, local_rank, host, port }))
    }
}

/// The variables in which a launcher tells a process where it stands.
struct Launcher {
    rank: &'static str,
    world_size: &'static str,
    local_rank: &'static str,
    /// What else has to be there: a batch script of SLURM is told of its tasks, though it is none of them.
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

    fn number<T: FromStr>(&self, variable: &str) -> Result<T, TrainError> {
        let found = (self.variable)(variable);
        let parsed = found.as_deref().and_then(|text| text.trim().parse().ok());
        parsed.ok_or_else(|| TrainError::Environment {
            variable: variable.to_owned(),
            remedy: match &found {
                Some(_) => "give a whole number below 65536".to_owned(),
                None => "set it beside the others, or start the processes with --nproc-per-node, torchrun, srun or mpirun"
                    .to_owned(),
            },
            found,
        })
    }

    /// `MASTER_ADDR` and `MASTER_PORT`, or what follows from what the launcher says.
    fn meeting_place(&self, launcher: &Launcher, rank: Rank) -> Result<(String, u16), TrainError> {
        let text = |name: &str| (self.variable)(name).filter(|text| !text.trim().is_empty());
        let is_slurm = launcher.step == Some(SLURM_STEP);
        let of_slurm = || text("SLURM_STEP_NODELIST").or_else(|| text("SLURM_JOB_NODELIST"));
        let on_one_machine =
            || text("OMPI_COMM_WORLD_LOCAL_SIZE").is_some_and(|size| size == rank.world_size().to_string());
        let host = text("MASTER_ADDR")
            .or_else(|| of_slurm().filter(|_| is_slurm).map(|nodes| first_host(&nodes)))
            .or_else(|| Some("127.0.0.1".to_owned()).filter(|_| on_one_machine()));
        let host = host.ok_or_else(|| TrainError::Environment {
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

/// The first host of a list as SLURM writes it: `node[03-07,12],login` begins with `node03`.
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

    fn place(set: &[(&str, &str)]) -> Result<Option<Place>, TrainError> {
        Place::from_environment(|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(set: &[(&str, &str)]) -> String {
        place(set).expect_err("cannot be used").to_string()
    }

    #[test]
    fn one_process_is_alone_whoever_started_it() {
        assert_eq!(place(&[]).unwrap(), None);
        assert_eq!(place(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // A batch script that SLURM gave four tasks to is none of them.
        assert_eq!(place(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(), None);
    }

    #[test]
    fn slurm_and_mpirun_say_where_a_process_stands() {
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_JOB_ID", "1234567"),
        ];
        let found = place(&slurm).unwrap().unwrap();
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
        let found = place(&mpi).unwrap().unwrap();
        assert_eq!((found.host.as_str(), found.port, found.rank.index()), ("127.0.0.1", 29500, 1));
        let spread = [&mpi[..3], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "1")]].concat();
        assert!(refused(&spread).contains("MASTER_ADDR"));
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_named() {
        let here = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "29400")];
        let with = |name: &'static str, value: &'static str| {
            here.iter().map(|&(key, old)| (key, if key == name { value } else { old })).collect::<Vec<_>>()
        };
        assert!(place(&here).unwrap().is_some());
        assert!(refused(&here[1..]).contains("RANK is not set"));
        assert!(refused(&here[..1]).contains("WORLD_SIZE is not set"));
        assert!(refused(&here[..2]).contains("MASTER_ADDR is not set"));
        assert!(refused(&with("RANK", "2")).contains("RANK is \"2\""));
        assert!(refused(&with("WORLD_SIZE", "two")).contains("WORLD_SIZE is \"two\""));
        assert!(refused(&with("MASTER_PORT", "70000")).contains("MASTER_PORT"));
    }

    #[test]
    fn lists_of_hosts_begin_with_one() {
        for (nodes, first) in
            [("a", "a"), ("a,b", "a"), ("n[3-5]", "n3"), ("n[012,4],x", "n012"), ("cn-1[5]", "cn-15")]
        {
            assert_eq!(first_host(nodes), first);
        }
    }
}
