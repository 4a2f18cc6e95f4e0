use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn lines_that_must_parse() {
    for line in [
        "lockstep up --kubeconfig k --policies p",
        "lockstep up --kubeconfig k --contexts a,b=arn:aws:eks:x/y --policies p --data-dir d --listen-api 127.0.0.1:0",
        "lockstep up --kubeconfig k --policies p --lease-namespace lockstep-system",
        "lockstep hub --config hub.yaml --log-format json -vv",
        "lockstep hub backup --data-dir d --to b -o json",
        "lockstep hub --config hub.yaml backup --to b",
        "lockstep hub restore --config hub.yaml --from b --force",
        "lockstep agent --config agent.yaml",
        "lockstep token create cluster-a -o json",
        "lockstep status",
        "lockstep status production --watch -o wide --server http://x:1",
        "lockstep clusters -o yaml",
        "lockstep cluster remove b --dry-run",
        "lockstep clusters remove b --yes -o json",
        "lockstep get deploy -A",
        "lockstep get deployments web -n shop --cluster a -l env=production,tier!=db",
        "lockstep explain deployment/web -n shop",
        "lockstep explain deployment web",
        "lockstep diff",
        "lockstep diff p --target b --all",
        "lockstep approve p --target b",
        "lockstep pause p",
        "lockstep resume --cluster b",
        "lockstep pause --all",
        "lockstep wait p --for=InStep --timeout 60s",
        "lockstep policy lint a.yaml dir -o json",
        "lockstep tombstones list deploy -n shop --since 2h",
        "lockstep tombstones list --name web-* --cause observed --policy p --until 1h",
        "lockstep tombstones show 7 --show-secrets",
        "lockstep doctor --kubeconfig k --policies p",
        "lockstep completions bash",
        "kubectl-lockstep status",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn lines_that_must_not_parse() {
    for line in [
        "lockstep",
        "lockstep up --kubeconfig k",
        "lockstep hub backup",
        "lockstep hub restore --force",
        "lockstep pause",
        "lockstep pause p --all",
        "lockstep get",
        "lockstep get a b c",
        "lockstep get deploy -A -n x",
        "lockstep wait p --timeout 60",
        "lockstep status -o xml",
        "lockstep policy lint",
        "lockstep tombstones show x",
        "lockstep completions cobol",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} was taken"));
        assert!(error.use_stderr() || line == "lockstep", "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn times_read_as_people_write_them() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
    for bad in ["", "s", "60", "1w", "99999999999999999999s", "9999999999999999999d"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}
