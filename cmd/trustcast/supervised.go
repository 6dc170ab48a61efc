package main

import (
	"github.com/trustcast/trustcast/internal/systemd"
	"github.com/trustcast/trustcast/server"
)

// supervised adds what systemd passed to this process, and what it wants to hear.
func supervised(cfg server.Config, getenv func(string) string) (server.Config, error) {
	var err error
	if cfg.Sockets, err = systemd.Sockets(server.SocketNames()...); err != nil {
		return cfg, err
	}
	if getenv("NOTIFY_SOCKET") == "" {
		return cfg, nil
	}
	cfg.Supervisor = server.Supervisor{Ready: systemd.Ready, Status: systemd.Status, Stopping: systemd.Stopping}
	if within := systemd.Watchdog(); within > 0 {
		cfg.Supervisor.Alive, cfg.Supervisor.Every = systemd.Alive, within/2
	}
	return cfg, nil
}
