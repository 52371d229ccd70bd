// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"os/exec"
	"syscall"
	"time"
)

// process is a block of commands that runs until it is stopped.
type process struct {
	e       *example
	command *exec.Cmd
	said    said
	ended   chan struct{}
}

// start runs a block in a process group of its own, so that all that it starts can
// be stopped.
func (e *example) start(block int) *process {
	e.Helper()
	p := &process{e: e, command: e.command(e.Context(), block), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = &p.said, &p.said
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.command.WaitDelay = 10 * time.Second
	e.check(p.command.Start())
	go func() {
		defer close(p.ended)
		_ = p.command.Wait()
	}()
	e.Cleanup(p.stop)
	return p
}

// stop ends the process as Ctrl-C would, and after ten seconds harder.
func (p *process) stop() {
	group := -p.command.Process.Pid
	_ = syscall.Kill(group, syscall.SIGINT)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.ended
}

// waitUntil fails the test if the process ends before something holds.
func (p *process) waitUntil(what string, holds func() bool) {
	p.e.Helper()
	if !until(time.Minute, p.ended, holds) {
		p.e.Fatalf("waited in vain until %s; the process said\n%s", what, p.e.scrub(p.said.String()))
	}
}
