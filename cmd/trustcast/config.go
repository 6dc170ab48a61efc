package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/internal/config"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
	"github.com/trustcast/trustcast/server"
)

func (a *app) config() *cobra.Command {
	return a.group("config", "Show what counts, and where it was set", "  trustcast config show", a.configShow())
}

type configJSON struct {
	// Source is "server" for what a running one counts, "start" for what one would
	// start with.
	Source string `json:"source"`
	// Settings are all that count.
	Settings []settingJSON `json:"settings"`
}

type settingJSON struct {
	// Key is the name as a flag or in the file, parts joined by dots.
	Key string `json:"key"`
	// Value is (secret) in place of one.
	Value string `json:"value"`
	// Origin is flag, environment, file, default, init, upgrade or systemd.
	Origin string `json:"origin"`
}

func (a *app) configShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Print each setting of the server, its value, and where that comes from",
		Long: "Print each setting of the server, its value, and where that comes from: flag, environment, file, default, init (what the data directory keeps of what 'trustcast init' was told), upgrade (the image of 'trustcast registry upgrade') or systemd (the address of a socket that it passed to the running server); secrets are hidden.\n\n" +
			"A running server is asked for what it was started with. Without one it is what 'trustcast server' would be started with by this environment and this file, and mistakes in them are errors.",
		Example: "  trustcast config show\n  trustcast config show --config ./config.yaml -o json", Args: names(),
	}
	out := output(c.Flags(), configJSON{})
	c.RunE = func(c *cobra.Command, _ []string) error {
		shown, err := a.running(c.Context())
		if err == nil {
			a.say("What the running server was started with:")
			return a.printSettings(shown, out.json())
		}
		if cli.Code(err) != cli.Unreachable {
			return err
		}
		unreachable := err
		if shown, err = a.starting(c); err != nil {
			return err
		}
		a.say("%v.\nWhat 'trustcast server' would be started with here:", unreachable)
		return a.printSettings(shown, out.json())
	}
	return c
}

// running asks the server.
func (a *app) running(ctx context.Context) (configJSON, error) {
	r, err := ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ShowConfigResponse, error) {
		return c.ShowConfig(ctx, &pb.ShowConfigRequest{})
	})
	shown := configJSON{Source: "server", Settings: []settingJSON{}}
	for _, s := range r.GetSettings() {
		shown.Settings = append(shown.Settings, settingJSON{s.GetKey(), s.GetValue(), s.GetOrigin()})
	}
	return shown, err
}

// startedHere is what `trustcast server` would be given here, unchecked, with the flags
// that say it.
func (a *app) startedHere(c *cobra.Command) (server.Config, *pflag.FlagSet, error) {
	var f serverFlags
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	f.add(flags)
	flags.AddFlagSet(c.Root().PersistentFlags()) // --data-dir and --config as given here
	origins, err := config.Lay(flags, a.getenv, a.file)
	if err != nil {
		return server.Config{}, nil, cli.Errorf(cli.Usage, "%w", err)
	}
	for _, shared := range []string{"data-dir", configFlag} {
		origins[shared] = a.origins.Of(shared) // Lay has set them before, so that they look typed
	}
	a.origins = origins
	return f.config(a), flags, nil
}

// starting is what `trustcast server` would count here.
func (a *app) starting(c *cobra.Command) (configJSON, error) {
	cfg, flags, err := a.startedHere(c)
	if err != nil {
		return configJSON{}, err
	}
	if err := cfg.Check(); err != nil {
		return configJSON{}, cli.Errorf(cli.Usage, "%w", err)
	}
	kept, err := server.ReadKept(cfg.DataDir, cfg.Image)
	if err != nil {
		return configJSON{}, err
	}
	settings, err := a.settings(flags, a.origins, cfg, kept)
	if err != nil {
		return configJSON{}, err
	}
	shown := configJSON{Source: "start", Settings: []settingJSON{}}
	for _, s := range settings {
		shown.Settings = append(shown.Settings, settingJSON(s))
	}
	return shown, nil
}

// settings are all that a server counts: these flags, what the data directory keeps,
// and the registry's parameters.
func (a *app) settings(flags *pflag.FlagSet, origins config.Origins, cfg server.Config, kept server.Kept) ([]server.Setting, error) {
	cfg.Registry.Engine = cmp.Or(cfg.EngineName, kept.Engine)
	parameters, secrets, err := cfg.Registry.Show()
	if err != nil {
		return nil, cli.Errorf(cli.Usage, "%w", err)
	}
	if secrets && a.file.Public {
		a.say("warning: %s holds secrets, and everybody on this machine can read it: run 'chmod 600 %s'", a.file.Path, a.file.Path)
	}
	var all []server.Setting
	for _, s := range config.Settings(flags, origins) {
		if s.Key == configFlag && a.file.Path != "" {
			s.Value = a.file.Path
		}
		all = append(all, underlay(server.Setting{Key: s.Key, Value: s.Value, Origin: string(s.Origin)}, cfg, kept))
	}
	return append(all, parameters...), nil
}

// underlay gives a setting that nothing sets the value that the data directory keeps.
func underlay(s server.Setting, cfg server.Config, kept server.Kept) server.Setting {
	docker := cmp.Or(cfg.EngineName, kept.Engine) == "docker"
	value := map[string]string{
		"domain": kept.Domain, "subject": kept.Subject, "engine": kept.Engine,
		"ca-life": formatDuration(kept.CALife), "leaf-life": formatDuration(kept.LeafLife), "control-life": formatDuration(kept.ControlLife),
	}[s.Key]
	switch {
	case s.Key == "alias" && len(kept.Aliases) > 0: // all count, whichever are given
		s.Value, s.Origin = "["+strings.Join(kept.Aliases, ",")+"]", "init"
	case s.Key == "volume" && docker && s.Value == "" && kept.Volume != "":
		s.Value, s.Origin = kept.Volume, "init"
	case s.Key == "registry-image" && docker && kept.Upgraded != "":
		s.Value, s.Origin = kept.Upgraded, "upgrade"
	case s.Origin == string(config.Default) && value != "":
		s.Value, s.Origin = value, "init"
	}
	return s
}

func (a *app) printSettings(c configJSON, asJSON bool) error {
	if asJSON {
		return cli.JSON(a.stdout, c)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(w, "SETTING\tVALUE\tORIGIN")
	for _, s := range c.Settings {
		_, bad := fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, visible(s.Value), s.Origin)
		err = errors.Join(err, bad)
	}
	return errors.Join(err, w.Flush())
}

// visible keeps a value on its line.
func visible(s string) string {
	switch {
	case s == "":
		return "-"
	case len(fmt.Sprintf("%q", s)) != len(s)+2:
		return fmt.Sprintf("%q", s)
	}
	return s
}
