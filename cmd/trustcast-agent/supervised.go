package main

import (
	"context"
	"fmt"

	"github.com/trustcast/trustcast/agent"
	"github.com/trustcast/trustcast/internal/systemd"
)

// supervised has systemd hear how the agent is, where that started it. stop is called
// when the agent has ended.
func supervised(ctx context.Context, cfg agent.Config, getenv func(string) string) (_ agent.Config, stop func() bool) {
	if getenv("NOTIFY_SOCKET") == "" {
		return cfg, func() bool { return true }
	}
	serves := ""
	cfg.Serves = func(registries int) {
		serves = servesText(registries)
		systemd.Status(serves)
	}
	cfg.Ready = func() { systemd.Ready(serves) }
	if within := systemd.Watchdog(); within > 0 {
		cfg.Alive, cfg.AliveEvery = systemd.Alive, within/2
	}
	return cfg, context.AfterFunc(ctx, systemd.Stopping)
}

// servesText is what `systemctl status` shows.
func servesText(registries int) string {
	switch registries {
	case 0:
		return "waits for 'trustcast-agent join': no registry was joined"
	case 1:
		return "keeps the registry's CA right"
	default:
		return fmt.Sprintf("keeps the CAs of %d registries right", registries)
	}
}
