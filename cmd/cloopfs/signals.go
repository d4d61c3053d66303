package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// notifyContext ends with the first signal that asks the program to end.
func notifyContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// signalsIgnored makes a process without a terminal deaf to the terminal's end.
func signalsIgnored() { signal.Ignore(syscall.SIGHUP) }
