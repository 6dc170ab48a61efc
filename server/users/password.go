package users

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxName is in characters; long enough for an e-mail address or a service
	// account, short enough for a table.
	maxName = 64
	// maxPassword is in bytes; bcrypt reads no further, so a longer password
	// would be weaker than it looks.
	maxPassword = 72
)

// ErrInvalid is what a name or password that cannot be used is; its text is in
// the error that matches it.
var ErrInvalid = errors.New("this name or password cannot be used")

// invalid is an ErrInvalid that says what is wrong and what to do.
type invalid string

func (e invalid) Error() string        { return string(e) }
func (e invalid) Is(target error) bool { return target == ErrInvalid }

func refuse(format string, args ...any) error { return invalid(fmt.Sprintf(format, args...)) }

// Check says why a user of this name and password cannot be made (an
// ErrInvalid), or nil. The error never repeats the password.
func Check(name, password string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	switch {
	case password == "":
		return refuse("the password is empty: give one, or leave it out to have one generated")
	case len(password) > maxPassword:
		return refuse("the password has %d bytes and bcrypt reads only %d: give a shorter one", len(password), maxPassword)
	case strings.ContainsRune(password, 0):
		return refuse("the password has a zero byte in it, which bcrypt takes for its end: give one without")
	}
	return nil
}

// CheckName says why a user cannot have this name (an ErrInvalid), or nil: it stands in HTTP
// Basic sign-ins and in lines of htpasswd, which know no quoting.
func CheckName(name string) error {
	switch {
	case name == "":
		return refuse("the user name is empty: give one, for example \"ci\"")
	case !utf8.ValidString(name):
		return refuse("user name %q is not UTF-8: give it in letters, digits and punctuation", name)
	case utf8.RuneCountInString(name) > maxName:
		return refuse("user name %.20q… has %d characters: give one of at most %d", name, utf8.RuneCountInString(name), maxName)
	case strings.Contains(name, ":"):
		return refuse("user name %q has a colon, which ends the name when signing in: give one without", name)
	case strings.HasPrefix(name, "#"):
		return refuse("user name %q starts with #, which makes a comment of it in htpasswd: give another first character", name)
	}
	for _, r := range name {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return refuse("user name %q has white space or a control character: give one without", name)
		}
	}
	return nil
}

// Generate returns a new random password of 26 characters, 130 bits, in
// lower-case letters and digits that are hard to confuse (no 0 and no 1).
func Generate() string { return strings.ToLower(rand.Text()) }

// dummyHash returns a bcrypt hash with random bits in place of salt and sum: it
// costs nothing to make, and as much to check as a real one of its cost.
func dummyHash(cost int) []byte {
	// 22 characters of salt and 31 of sum. rand.Text's alphabet is part of
	// bcrypt's, and 53 of its characters are 265 random bits.
	text := rand.Text() + rand.Text() + rand.Text()
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, text[:22+31])
}
