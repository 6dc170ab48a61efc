package explore

// What no scope has: a server's clock that cannot be relied on, the two handshakes
// of one proof at two moments, evidence that changes between a look at it and the
// write that follows, hosts that lie, and more than one backup.

// quick scopes are explored by each `go test`, up to quickStates worlds each.
var quick = []scope{
	{name: "one host, joining", least: 10_000, hosts: 1, fresh: true, down: 1, up: 1, budget: budget{rotations: 1, crashes: 1}},
	{name: "one host, messages", least: 25_000, hosts: 1, down: 2, up: 2, budget: budget{rotations: 1, losses: 1, repeats: 1}},
	{name: "one host, stops", least: 40_000, hosts: 1, down: 1, up: 1, budget: budget{rotations: 1, crashes: 1, agentCrashes: 1, absences: 1}},
	{name: "one host, theft", least: 35_000, hosts: 1, whole: true, budget: budget{rotations: 1, compromises: 1, skips: 1, absences: 1}},
	{name: "one host, ends", least: 25_000, hosts: 1, whole: true, budget: budget{rotations: 2, absences: 1, ends: 1}},
	{name: "one host, restore", least: 25_000, hosts: 1, whole: true, budget: budget{rotations: 1, absences: 1, backups: 1, restores: 1, hurries: 1}},
	{name: "one host, new at restore", least: 30_000, hosts: 1, fresh: true, whole: true, budget: budget{rotations: 1, skips: 1, backups: 1, restores: 1}},
	{name: "one host, refusal", least: 1_500, hosts: 1, whole: true, budget: budget{rotations: 1, rollbacks: 1, refusals: 1, nextRefused: 1}},
	{name: "one host, trouble", least: 40_000, hosts: 1, whole: true, budget: budget{rotations: 1, absences: 1, agings: 1, drifts: 1, refusals: 1}},
	{name: "one host, ends unheard", least: 35_000, hosts: 1, whole: true, budget: budget{rotations: 1, crashes: 1, absences: 1, ends: 2}},
	{name: "two hosts, messages", least: 2_000, hosts: 2, down: 1, up: 1, budget: budget{rotations: 1}},
	{name: "two hosts, removal", least: 15_000, hosts: 2, whole: true, budget: budget{compromises: 1, removals: 1}},
	{name: "two hosts, an old copy", least: 5_000, hosts: 2, whole: true, exact: true, budget: budget{rotations: 1, backups: 1, copies: 1}},
	{name: "one host, adopted", least: 15_000, hosts: 1, adopted: true, fresh: true, down: 1, up: 1, budget: budget{rotations: 1, absences: 1}},
	{name: "one host, adopted, back", least: 20_000, hosts: 1, adopted: true, whole: true, budget: budget{rotations: 2, rollbacks: 1, absences: 1}},
	{name: "one host, adopted, ends", least: 25_000, hosts: 1, adopted: true, whole: true, budget: budget{rotations: 2, absences: 1, ends: 1}},
	{name: "one host, adopted, restore", least: 30_000, hosts: 1, adopted: true, whole: true, budget: budget{rotations: 1, absences: 1, backups: 1, restores: 1, hurries: 1}},
	{name: "one host, adopted, theft", least: 9_000, hosts: 1, adopted: true, whole: true, budget: budget{rotations: 1, compromises: 1, crashes: 1}},
	{name: "two hosts, adopted", least: 4_000, hosts: 2, adopted: true, whole: true, budget: budget{rotations: 1, absences: 1}},
	{name: "three hosts, rotations", least: 2_500, hosts: 3, whole: true, budget: budget{rotations: 2}},
	{name: "two hosts, stops", least: quickStates, cut: true, hosts: 2, whole: true, budget: budget{rotations: 1, absences: 1, crashes: 1, rollbacks: 1}},
}

// full scopes are explored besides when TRUSTCAST_PROVE is set. What they lose in
// grain they win in hosts.
var full = []scope{
	{name: "three hosts, messages", least: 700_000, hosts: 3, down: 1, up: 1, budget: budget{rotations: 2}},
	{name: "three hosts, stops", least: 250_000, hosts: 3, whole: true, budget: budget{rotations: 1, rollbacks: 1, absences: 1}},
	{name: "three hosts, crashes", least: 50_000, hosts: 3, whole: true, budget: budget{rotations: 2, crashes: 1}},
	{name: "two hosts, coming, going", least: 120_000, hosts: 2, whole: true, budget: budget{rotations: 1, absences: 1, removals: 1, enrolments: 1}},
	{name: "two hosts, theft", least: proveStates, cut: true, hosts: 2, whole: true, budget: budget{rotations: 1, compromises: 1, skips: 1, absences: 1}},
	{name: "two hosts, restore", least: proveStates, cut: true, hosts: 2, whole: true, budget: budget{rotations: 1, crashes: 1, absences: 1, backups: 1, restores: 1, hurries: 1}},
	{name: "one host, rollback", least: 100_000, hosts: 1, down: 1, up: 1, budget: budget{rotations: 2, rollbacks: 1, renewals: 1}},
	{name: "one host, theft in full", least: proveStates, cut: true, hosts: 1, down: 1, budget: budget{rotations: 1, compromises: 2, skips: 1, crashes: 1, absences: 1}},
	{name: "one host, ends in full", least: proveStates, cut: true, hosts: 1, whole: true, budget: budget{rotations: 3, rollbacks: 1, absences: 1, ends: 4, nextRefused: 1}},
	{name: "one host, restore in full", least: proveStates, cut: true, hosts: 1, up: 1, budget: budget{rotations: 2, crashes: 1, backups: 1, restores: 1, hurries: 1}},
	{name: "one host, drift", least: 250_000, hosts: 1, up: 1, budget: budget{rotations: 1, skips: 1, agings: 1, drifts: 1, refusals: 1}},
}
