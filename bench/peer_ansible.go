package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ansible copies with its own module, 20 hosts at a time.
func (l *lab) ansible(ctx context.Context, old []byte) (*spreader, error) {
	if err := l.debian(ctx, map[string]string{"ansible-core": "ansible", "python3": "python3"}); err != nil {
		return nil, err
	}
	hosts, err := l.sshHosts(ctx, "ansible", old)
	if err != nil {
		return nil, err
	}
	inventory, err := hosts.inventory()
	if err != nil {
		return nil, err
	}
	masters, config := filepath.Join(hosts.dir, "cp"), filepath.Join(hosts.dir, "ansible.cfg")
	if err := os.WriteFile(config, nil, 0o600); err != nil { // else it reads the user's
		return nil, err
	}
	env := append(os.Environ(), "LC_ALL=C.UTF-8", "ANSIBLE_CONFIG="+config,
		"ANSIBLE_HOME="+filepath.Join(hosts.dir, "home"), "ANSIBLE_LOCAL_TEMP="+filepath.Join(hosts.dir, "local"), "ANSIBLE_REMOTE_TEMP="+filepath.Join(hosts.dir, "remote"),
		"ANSIBLE_SSH_CONTROL_PATH_DIR="+masters, "ANSIBLE_SSH_COMMON_ARGS="+strings.Join(hosts.options(), " "))
	return &spreader{
		dirs: hosts.dirs,
		spread: func(ctx context.Context, b caBundle) error {
			src := filepath.Join(hosts.dir, "new.crt")
			if err := os.WriteFile(src, b.pem(), 0o600); err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "ansible", "all", "--inventory", inventory, "--forks", fmt.Sprint(spreadHosts),
				"--module-name", "copy", "--args", "src="+src+" dest={{dest}}/"+caFile+" mode=0644")
			cmd.Env = env
			// Its workers end with it.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
			cmd.WaitDelay = 10 * time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("ansible: %w\n%s", err, out)
			}
			return nil
		},
		settle:  func(ctx context.Context) error { return endMasters(ctx, masters) },
		unequal: "Ansible's copy module asks each host for the file's hash first, and does not sync what it writes",
	}, nil
}

// endMasters ends the connections that ssh keeps for Ansible, so that the next round
// begins as this one did.
func endMasters(ctx context.Context, dir string) error {
	sockets, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, socket := range sockets {
		_, gone := output(ctx, nil, "ssh", "-F", "none", "-O", "exit", "-S", socket, "any")
		err = errors.Join(err, gone)
	}
	return err
}
