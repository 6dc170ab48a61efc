//go:build linux

package fleet_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sweep removes everything that run n made; it is safe to repeat.
func sweep(n int) error {
	err := killMarked(n)
	for _, v := range volumes(n) {
		err = errors.Join(err, removeVolume(v))
	}
	for _, ns := range namespaces(n) {
		_, e := command("ip", "netns", "del", ns)
		err = errors.Join(err, e)
	}
	for _, link := range links(n) {
		// A veth goes with its namespace or its peer, perhaps just now.
		_, e := command("ip", "link", "del", link)
		if e != nil && slices.Contains(links(n), link) {
			err = errors.Join(err, e)
		}
	}
	for _, rule := range rules(n) {
		_, e := command("iptables", append([]string{"-w", "-D"}, strings.Fields(rule)[1:]...)...)
		err = errors.Join(err, e)
	}
	for _, m := range mounts(n) {
		err = errors.Join(err, syscall.Unmount(m, syscall.MNT_DETACH))
	}
	for _, dir := range cgroups(n) {
		err = errors.Join(err, os.Remove(dir))
	}
	if _, e := os.Stat(filepath.Join(runDir(n), madeEtcDocker)); e == nil {
		err = errors.Join(err, os.Remove("/etc/docker"))
	}
	return errors.Join(err, os.RemoveAll(runDir(n)))
}

// leftovers lists what there still is of run n.
func leftovers(n int) []string {
	var left []string
	for _, pid := range marked(n) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left = append(left, fmt.Sprintf("process %d (%s)", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	}
	for kind, names := range map[string][]string{
		"namespace": namespaces(n), "link": links(n), "iptables rule": rules(n), "mount": mounts(n),
		"volume": volumes(n), "cgroup": cgroups(n),
	} {
		for _, name := range names {
			left = append(left, kind+" "+name)
		}
	}
	if _, err := os.Lstat(runDir(n)); err == nil {
		left = append(left, "directory "+runDir(n))
	}
	return left
}

// volumes lists tcf<n> and tcf<n>-<name> of the machine's own engine, on which a
// server of the fleet runs its registry.
func volumes(n int) []string {
	out, err := command("docker", "volume", "ls", "--quiet")
	if err != nil {
		return nil // the fleet needs an engine, but not this one
	}
	return slices.DeleteFunc(strings.Fields(out), func(v string) bool {
		return v != runName(n) && !strings.HasPrefix(v, runName(n)+"-")
	})
}

// removeVolume removes a volume and the containers that use it.
func removeVolume(name string) error {
	out, err := command("docker", "ps", "--all", "--quiet", "--filter", "volume="+name)
	if err != nil {
		return err
	}
	for _, id := range strings.Fields(out) {
		if _, e := command("docker", "rm", "--force", id); e != nil && !strings.Contains(e.Error(), "No such container") {
			err = errors.Join(err, e)
		}
	}
	_, e := command("docker", "volume", "rm", name)
	return errors.Join(err, e)
}

// killMarked ends the processes of run n. They are listed again until there
// are none, because a process may start another before it dies.
func killMarked(n int) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		pids := marked(n)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// marked lists the processes that have run n's mark in their environment, or are
// in a container of its engines.
func marked(n int) []int {
	mark, parent := []byte(markEnv+"="+runName(n)), []byte("/"+runName(n)+"/")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		env, _ := os.ReadFile(filepath.Join(dir, "environ")) // none: it has ended
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if !slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) }) && !bytes.Contains(groups, parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cgroups lists the control groups of run n's containers, the deepest first: one
// tree for each controller, or a single one (version 2).
func cgroups(n int) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		roots, _ := filepath.Glob(filepath.Join(pattern, runName(n)))
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error { // what vanishes meanwhile is gone
				if err == nil && d.IsDir() {
					found = append(found, path)
				}
				return nil
			})
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	slices.Reverse(found)
	return found
}

func namespaces(n int) []string {
	entries, _ := os.ReadDir("/run/netns")
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), runName(n)+"-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// links lists the bridge tcf<n> and the bridge side of the veth pairs,
// tcf<n>-<host>.
func links(n int) []string {
	entries, _ := os.ReadDir("/sys/class/net")
	var names []string
	for _, e := range entries {
		if e.Name() == runName(n) || strings.HasPrefix(e.Name(), runName(n)+"-") {
			names = append(names, e.Name())
		}
	}
	return names
}

func rules(n int) []string {
	out, err := command("iptables", "-w", "-S")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(out) {
		if slices.Contains(strings.Fields(line), runName(n)) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// mounts lists what is mounted below the run's directory, the deepest first.
func mounts(n int) []string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], runDir(n)+"/") {
			found = append(found, fields[4])
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found
}

// command runs a program to its end and returns its output; the error has what
// it said.
func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}
