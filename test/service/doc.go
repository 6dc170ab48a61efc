// Package service runs both programs as a service manager does: sockets that it holds,
// readiness, watchdog, health.
package service
