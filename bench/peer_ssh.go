package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	osuser "os/user"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// sshHosts are hosts that can be signed in to with a key, each with a server of its
// own.
type sshHosts struct {
	dirs, addresses []string
	dir, key, user  string // of all
}

// sshServer runs one in the foreground, as root behind a /run of its own, where it
// wants a directory and writes who is signed in.
const sshServer = `set -e
if [ "$(id -u)" = 0 ]; then
	mount -t tmpfs -o size=1m,mode=755 none /run
	mkdir -m 755 /run/sshd
fi
exec /usr/sbin/sshd -D -e -f "$1"
`

// sshHosts starts a server for each host.
func (l *lab) sshHosts(ctx context.Context, name string, old []byte) (*sshHosts, error) {
	if err := l.debian(ctx, map[string]string{"openssh-server": "sshd", "openssh-client": "ssh"}); err != nil {
		return nil, err
	}
	dirs, err := l.hostDirs(name, old)
	if err != nil {
		return nil, err
	}
	me, err := osuser.Current()
	if err != nil {
		return nil, err
	}
	h := &sshHosts{dirs: dirs, dir: l.path(name), user: me.Username}
	h.key = filepath.Join(h.dir, "key")
	for _, key := range []string{h.key, filepath.Join(h.dir, "host")} {
		if _, err := output(ctx, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
			return nil, err
		}
	}
	if h.addresses, err = freeAddresses(len(dirs)); err != nil {
		return nil, err
	}
	program, before := "sh", []string(nil)
	if os.Geteuid() == 0 {
		program, before = "unshare", []string{"--mount", "sh"}
	}
	for i, address := range h.addresses {
		config := filepath.Join(h.dir, fmt.Sprintf("sshd-%d", i))
		if err := os.WriteFile(config, h.config(address), 0o600); err != nil {
			return nil, err
		}
		p, err := l.start("sshd", program, nil, append(before, "-c", sshServer, "sh", config)...)
		if err != nil {
			return nil, err
		}
		if err := p.listens(ctx, address); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *sshHosts) config(address string) []byte {
	return fmt.Appendf(nil, `ListenAddress %s
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/key.pub
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
MaxStartups 100
LogLevel ERROR
Subsystem sftp internal-sftp
`, address, h.dir)
}

// options of ssh that no file of the user changes.
func (h *sshHosts) options() []string {
	return []string{"-F", "none", "-i", h.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
}

// sshWrite is how ours writes, in shell.
const sshWrite = `cd '%s' && cat >.ca.tmp && sync .ca.tmp && mv .ca.tmp ca.crt && sync .`

// ssh is a loop over all hosts, all at once.
func (l *lab) ssh(ctx context.Context, old []byte) (*spreader, error) {
	hosts, err := l.sshHosts(ctx, "ssh", old)
	if err != nil {
		return nil, err
	}
	return &spreader{
		dirs: hosts.dirs,
		spread: func(ctx context.Context, b caBundle) error {
			g, ctx := errgroup.WithContext(ctx)
			for i, address := range hosts.addresses {
				g.Go(func() error {
					host, port, err := net.SplitHostPort(address)
					if err != nil {
						return err
					}
					_, err = output(ctx, bytes.NewReader(b.pem()), "ssh", append(hosts.options(), "-l", hosts.user, "-p", port, host, fmt.Sprintf(sshWrite, hosts.dirs[i]))...)
					return err
				})
			}
			return g.Wait()
		},
		unequal: "ssh signs in anew each time, with 20 servers and 20 clients on one machine",
	}, nil
}

// inventory of Ansible.
func (h *sshHosts) inventory() (string, error) {
	var b strings.Builder
	for i, address := range h.addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "host-%d ansible_host=%s ansible_port=%s dest=%s\n", i, host, port, h.dirs[i])
	}
	fmt.Fprintf(&b, "[all:vars]\nansible_user=%s\nansible_python_interpreter=/usr/bin/python3\n", h.user)
	path := filepath.Join(h.dir, "inventory")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}
