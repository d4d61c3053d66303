package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// background is how many reads for read-ahead the kernel has under way at a time for the
// file system mounted at dir: maxBackground, or less if the process that mounted it was no
// superuser, and memory is small (334 with 1 GiB). It asks nobody who serves dir.
func background(dir string) int {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC, 0, &st); err == nil {
		if n, ok := readNumber(fmt.Sprintf("/sys/fs/fuse/connections/%d/max_background", st.Dev_minor)); ok {
			return n
		}
	}
	// Not all machines have fusectl mounted, nor all containers. What is the limit for
	// users alone does the superuser no harm.
	if n, ok := readNumber("/sys/module/fuse/parameters/max_user_bgreq"); ok {
		return min(n, maxBackground)
	}
	return maxBackground
}

// readNumber returns the number above 0 that is all that a file has, if it can be read.
func readNumber(file string) (n int, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(string(bytes.TrimSpace(text)))
	return n, err == nil && n > 0
}
