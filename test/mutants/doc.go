// Package mutants tests the tests: each testdata/NAME.mutant breaks one promise
// in the program's source, as a `go test -overlay` that leaves the tree alone,
// and names the tests that must fail over it.
//
// A mutant that compiles and fails no test, does not compile, or no longer
// applies to the source is an error. All run with TRUSTCAST_PROVE set; otherwise
// each sixth of those that are not marked `prove`, which need a slow test. Whether
// a mutant applies is always looked at.
package mutants
