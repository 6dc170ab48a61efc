// Package systemd tells the service manager how this process is, and takes the sockets
// that it opened for it.
//
// The protocol is sd_notify(3) and sd_listen_fds(3). Where no service manager asks for it
// nothing happens, so nobody has to know whether there is one.
package systemd

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells that the service does its work, and in one line how it is; text may be
// empty. A message that does not arrive is no error: the manager waits, and says so.
func Ready(text string) { notify(daemon.SdNotifyReady, text) }

// Status tells in one line how the service is; `systemctl status` shows it.
func Status(text string) { notify("", text) }

// Stopping tells that the service is ending, which may take a while.
func Stopping() { notify(daemon.SdNotifyStopping, "") }

// Alive tells that the service is not stuck. Call it at half of Watchdog at the latest,
// and only while that is true: without it the manager starts the service again.
func Alive() { notify(daemon.SdNotifyWatchdog, "") }

func notify(state, text string) {
	if text != "" {
		state = strings.TrimPrefix(state+"\nSTATUS="+text, "\n")
	}
	_, _ = daemon.SdNotify(false, state) // see Ready
}

// Watchdog returns within what time the manager wants to hear Alive; 0: it does not.
func Watchdog() time.Duration {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0 // what the manager wrote makes no sense, and nobody waits
	}
	return within
}

// Sockets returns the TCP listeners that the manager opened for this process, by
// FileDescriptorName=, and none where it opened none. Only names are accepted, each once.
// It can be called once: the variables that say so are removed, for the sake of children.
func Sockets(names ...string) (map[string]net.Listener, error) {
	taken := map[string]net.Listener{}
	for _, file := range activation.Files(true) {
		lis, err := take(file, taken, names)
		if err != nil {
			for _, lis := range taken {
				_ = lis.Close() // nothing was accepted
			}
			return nil, err
		}
		taken[file.Name()] = lis
	}
	return taken, nil
}

// take makes a listener of a socket, which has a descriptor of its own then.
func take(file *os.File, taken map[string]net.Listener, names []string) (net.Listener, error) {
	defer func() { _ = file.Close() }()
	name := file.Name()
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("systemd passed a socket called %q: give it one of the names %q by FileDescriptorName= in its unit", name, names)
	}
	if taken[name] != nil {
		return nil, fmt.Errorf("systemd passed two sockets called %q: leave one ListenStream= of it, which may be a bare port for all addresses", name)
	}
	lis, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("systemd passed %q, which is no listening socket (%w): use ListenStream= in its unit", name, err)
	}
	if lis.Addr().Network() != "tcp" {
		return nil, fmt.Errorf("systemd passed %q on %s, which is not TCP: use ListenStream= with a port in its unit", name, lis.Addr())
	}
	return lis, nil
}
