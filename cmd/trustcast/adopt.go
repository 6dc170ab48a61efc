package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trustcast/trustcast/internal/cli"
	"github.com/trustcast/trustcast/server"
)

// adoptedJSON is what `init --adopt -o json` took over. Lists are never null.
type adoptedJSON struct {
	// Certificate and Issuer are empty, and NotAfter null, with a new CA.
	Certificate string `json:"certificate"`
	// Dir is where the data are.
	Dir string `json:"dir"`
	// Issuer is who signed the certificate.
	Issuer string `json:"issuer"`
	// NotAfter is when the certificate ends.
	NotAfter *time.Time `json:"not_after"`
	// Repositories is how many there are.
	Repositories int `json:"repositories"`
	// Users can sign in as before.
	Users []string `json:"users"`
	// Passed are lines of htpasswd that make no user.
	Passed []passedJSON `json:"passed"`
	// Without are names that the certificate is not for.
	Without []string `json:"without"`
	// Running are containers that still use the data.
	Running []string `json:"running"`
	// PortAnswers says that something answers on the registry's port.
	PortAnswers bool `json:"port_answers"`
}

type passedJSON struct {
	// Line is its number in the file.
	Line int `json:"line"`
	// Name is whom it is about.
	Name string `json:"name"`
	// Kind is what it has instead of bcrypt.
	Kind string `json:"kind"`
}

func newAdoptedJSON(r *server.AdoptResult) *adoptedJSON {
	if r == nil {
		return nil
	}
	out := &adoptedJSON{
		Dir: r.Dir, Certificate: r.Certificate, Issuer: r.Issuer, NotAfter: cli.Instant(r.Ends), Repositories: r.Repositories,
		Users: append([]string{}, r.Users...), Passed: []passedJSON{},
		Without: append([]string{}, r.Without...), Running: append([]string{}, r.Running...), PortAnswers: r.Answers,
	}
	for _, p := range r.Passed {
		out.Passed = append(out.Passed, passedJSON{p.Line, p.Name, p.Kind})
	}
	return out
}

// adoptedRows are the lines of what was taken over.
func adoptedRows(r server.InitResult) []string {
	o := r.Adopted
	if o == nil {
		return nil
	}
	rows := []string{row("data", o.Dir)}
	if o.Certificate != "" {
		rows = append(rows, row("certificate", o.Certificate+", until "+cli.Day(o.Ends)))
	}
	if o.Issuer != o.Certificate {
		rows = append(rows, row("issuer", o.Issuer))
	}
	return append(rows, row("repositories", fmt.Sprint(o.Repositories)), row("users", fmt.Sprint(len(o.Users))))
}

// sayTaken says what was not taken over, and what that means for hosts.
func (a *app) sayTaken(o *server.AdoptResult) {
	for _, p := range o.Passed {
		a.say("Line %d of auth/htpasswd makes no user: %s.", p.Line, strings.TrimPrefix(fmt.Sprintf("%q has %s", p.Name, p.Kind), `"" has `))
	}
	if len(o.Passed) > 0 {
		a.say("Only bcrypt lets anybody in, as before; the old file is kept as auth/htpasswd.adopted. Add such users with '%s'.", a.hint("user add NAME"))
	}
	for _, name := range o.Without {
		a.say("The certificate is not for %s: that name verifies from the first rotation on.", name)
	}
	if o.Certificate == "" {
		a.say("Hosts get a new CA: each fails from the switch-over until it has joined.")
	} else {
		a.say("Hosts need nothing: the registry goes on serving the certificate that they trust, until the first rotation.")
	}
}

// sayAdopted says what was taken over, and how to switch over.
func (a *app) sayAdopted(o *server.AdoptResult) {
	a.sayTaken(o)
	stop := []string{"stop the old registry, so that one alone writes to the data"}
	if len(o.Running) == 0 && o.Answers {
		stop[0] += "; something answers on its port"
	}
	if len(o.Running) > 0 {
		names := strings.Join(o.Running, " ")
		stop = []string{"docker update --restart=no " + names, "docker stop " + names}
	}
	a.say("Switch over:")
	steps := slices.Concat(stop, []string{a.startHint(), a.hint("token create") + "   # then run the line that it prints on each host"})
	if o.Certificate != "" {
		steps = append(steps, a.hint("ca rotate --dry-run")+"   # when all hosts have joined; then without --dry-run")
	}
	for i, step := range steps {
		a.say("  %d. %s", i+1, step)
	}
}
