package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/trustcast/trustcast/internal/cli"
	pb "github.com/trustcast/trustcast/proto/trustcast/v1"
)

// An export of users is a list of password hashes: for its owner alone.
const userExportMode = 0o600

func (a *app) user() *cobra.Command {
	return a.group("user", "Add, remove, list and export the registry's users", "  trustcast user add ci\n  trustcast user ls",
		a.userAdd(), a.userRemove(), a.userList(), a.userExport())
}

func (a *app) userAdd() *cobra.Command {
	c := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a user, or give one a new password",
		Long:    "Add a user, or give one a new password. It counts from the next request on, and nothing in flight is cut.\n\nThe password is asked for on a terminal, read with --password-stdin, or generated and printed once.",
		Example: "  trustcast user add ci\n  trustcast user add ci --password-stdin <password.txt\n  PASSWORD=$(trustcast user add ci </dev/null)",
		Args:    names("the user's NAME"),
	}
	stdin := c.Flags().Bool("password-stdin", false, "read the password from standard input")
	out := output(c.Flags(), addedUserJSON{})
	c.RunE = func(c *cobra.Command, args []string) error {
		password, err := a.password(args[0], *stdin)
		if err != nil {
			return err
		}
		made := ""
		if password == "" {
			made = generated()
			password = made
		}
		r, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.AddUserResponse, error) {
			return c.AddUser(ctx, &pb.AddUserRequest{Name: args[0], Password: password})
		})
		if err != nil {
			return err
		}
		return a.printAdded(addedUserJSON{args[0], r.GetReplaced(), made}, out.json())
	}
	return c
}

type addedUserJSON struct {
	// Name is the user.
	Name string `json:"name"`
	// Replaced says that the user was there and has a new password.
	Replaced bool `json:"replaced"`
	// Password is the generated one, else empty.
	Password string `json:"password"`
}

func (a *app) printAdded(u addedUserJSON, asJSON bool) error {
	if asJSON {
		return cli.JSON(a.stdout, u)
	}
	if u.Replaced {
		a.say("User %s has a new password.", u.Name)
	} else {
		a.say("User %s is added.", u.Name)
	}
	if u.Password == "" {
		return nil
	}
	a.say("The password was generated and is shown only this once:")
	_, err := fmt.Fprintln(a.stdout, u.Password)
	return err
}

func (a *app) userRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a user, from the next request on",
		Example: "  trustcast user rm ci", Args: names("the user's NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			_, err := ask(c.Context(), a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.RemoveUserResponse, error) {
				return c.RemoveUser(ctx, &pb.RemoveUserRequest{Name: args[0]})
			})
			if err == nil {
				a.say("User %s is removed.", args[0])
			}
			return err
		},
	}
}

func (a *app) users(ctx context.Context) (*pb.ListUsersResponse, error) {
	return ask(ctx, a, func(ctx context.Context, c pb.AdminServiceClient) (*pb.ListUsersResponse, error) {
		return c.ListUsers(ctx, &pb.ListUsersRequest{})
	})
}

func (a *app) userList() *cobra.Command {
	c := &cobra.Command{Use: "ls [PATTERN...]", Short: "List the users, all or those like one of the patterns", Example: "  trustcast user ls\n  trustcast user ls 'ci-*'", Args: patterns}
	out := output(c.Flags(), []string{})
	c.RunE = func(c *cobra.Command, args []string) error {
		r, err := a.users(c.Context())
		if err != nil {
			return err
		}
		names := slices.DeleteFunc(list(r.GetNames()), func(name string) bool { return !alike(args, name) })
		if out.json() {
			return cli.JSON(a.stdout, names)
		}
		return printNames(a.stdout, names, func(name string) string { return name })
	}
	return c
}

func (a *app) userExport() *cobra.Command {
	return &cobra.Command{
		Use: "export FILE|-", Short: "Write all users as an htpasswd file (bcrypt)",
		Example: "  trustcast user export htpasswd", Args: names("a FILE, or - for standard output"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.users(c.Context())
			if err != nil {
				return err
			}
			return a.export(args[0], r.GetHtpasswd(), userExportMode)
		},
	}
}
