//go:build integration

package test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/profile"
)

// bootScript prints how long the guest has been up, and which services have failed.
const bootScript = systemdScript + `
	echo UP $(cut -d" " -f1 /proc/uptime)
	systemctl --failed --plain --no-legend | sed "s/^/FAILED /"
`

// systemBoot is to boot the system on the disk, by systemd, in UML.
type systemBoot struct{}

func (systemBoot) do(b *testing.B, s *session, v view, _ func() int64) (got reading, err error) {
	// UML's COW needs a backing file whose mtime stays. QEMU's export is none.
	disk, err := s.attach(v.disk)
	if err != nil {
		return got, err
	}
	cmd := exec.Command("sh", "-e", "-c", "exec "+umlCommand(s.path("cow")+","+disk))
	cmd.Env = append(os.Environ(), "GUEST_INIT=script")
	p := withGuests(b, cmd, bootScript)
	if !p.endsWithin(patience) {
		p.kill()
		s.abort()
		return got, fmt.Errorf("the guest has not booted within %v", patience)
	}
	var failed strings.Builder
	for line := range strings.Lines(p.stdout.String()) {
		if up, ok := strings.CutPrefix(line, "UP "); ok {
			if got.Booted, err = time.ParseDuration(strings.TrimSpace(up) + "s"); err != nil {
				return got, err
			}
		}
		if strings.HasPrefix(line, "FAILED ") {
			failed.WriteString(line)
		}
	}
	if !strings.Contains(p.stdout.String(), guestMark) || got.Booted == 0 {
		return got, fmt.Errorf("the guest has not booted: %s", brief(p.stdout.String()))
	}
	got.Sum = crc32.ChecksumIEEE([]byte(failed.String()))
	return got, nil
}

// partOf writes a trace to file, without each fifth of its runs.
func partOf(trace, file string) (string, error) {
	raw, err := os.ReadFile(trace)
	if err != nil {
		return "", err
	}
	p, err := profile.Read(bytes.NewReader(raw))
	if err != nil {
		return "", err
	}
	kept := p.Runs[:0]
	for i, r := range p.Runs {
		if i%5 != 4 {
			kept = append(kept, r)
		}
	}
	p.Runs = kept
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, out.Bytes(), 0o600)
}
