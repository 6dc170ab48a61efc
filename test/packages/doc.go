// Package packages tries what deploy/ has for hosts: systemd units, Debian packages in
// a folder made by debootstrap, a boot of it with Docker, the Ansible role, Prometheus'
// rules. test/fleet has the rest, which needs many engines.
//
// Each test skips with the name of the tool that is missing. Those that change a
// system run in a root directory and in namespaces of their own, as root and when
// TRUSTCAST_FLEET=1 is set.
package packages
