// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of the guest: starts the processes, and says ten times a second on the
 * console how far each of them is. A line is "beat key=value key=value …" and
 * one write(). A line in the other direction corrupts something: see corrupt().
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "tasks.h"

#define CONSOLE "/dev/hvc0"
#define BEAT_MS 100
#define BEATS_PER_COUNT 10

struct shared *shared;

struct process {
	char name[24];
	pid_t pid;
	const struct faults *faults;
	bool told;
};

static struct process processes[MAX_CPUS + 6];
static unsigned int nr_processes, nr_cpus;

static pid_t start(const char *name)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	if (!strncmp(name, "stamper", strlen("stamper")))
		stamp(atoi(name + strlen("stamper")));
	if (!strcmp(name, "checker"))
		check_memory();
	if (!strcmp(name, "receiver"))
		receive_tcp();
	if (!strcmp(name, "sender"))
		send_tcp();
	if (!strcmp(name, "nic"))
		receive_frames();
	if (!strcmp(name, "talker"))
		talk_to_host();
	write_file();
}

static void add(const struct faults *faults, const char *name)
{
	struct process *process = &processes[nr_processes++];

	snprintf(process->name, sizeof(process->name), "%s", name);
	process->faults = faults;
}

static void start_all(void)
{
	char name[24];

	nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (nr_cpus > MAX_CPUS)
		nr_cpus = MAX_CPUS;
	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++) {
		snprintf(name, sizeof(name), "stamper%u", cpu);
		add(&shared->stamper[cpu].faults, name);
	}
	add(&shared->receiver.faults, "receiver");
	add(&shared->sender.faults, "sender");
	add(&shared->writer.faults, "writer");
	if (nic_present()) {
		add(&shared->nic.faults, "nic");
		add(&shared->talk.faults, "talker");
	}
	add(&shared->checker.faults, "checker");
	for (unsigned int i = 0; i < nr_processes; i++) {
		processes[i].pid = start(processes[i].name);
		/* It takes its memory before the checker takes what is left. */
		while (processes[i].faults == &shared->nic.faults && !shared->nic.up)
			sleep_ms(10);
	}
}

static void mount_all(void)
{
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
}

/*
 * The kernel may run /init before the host has said, over a queue of the
 * device, that there is a console: its own attempt to open one has then failed.
 */
static void open_console(void)
{
	struct termios raw;
	int fd;

	while ((fd = open(CONSOLE, O_RDWR)) < 0)
		sleep_ms(1);
	if (!tcgetattr(fd, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(fd, TCSANOW, &raw);
	}
	for (int standard = STDIN_FILENO; standard <= STDERR_FILENO; standard++)
		dup2(fd, standard);
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		die("lo");
	close(fd);
}

static void read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, line, size - 1);

	line[len > 0 ? len : 0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
}

/* Field 22 of /proc/PID/stat, in clock ticks since boot; 0 when it is gone or a zombie. */
static unsigned long long start_time(pid_t pid)
{
	unsigned long long ticks = 0;
	char path[32], text[512], *rest, state;

	sprintf(path, "/proc/%d/stat", pid);
	read_line(path, text, sizeof(text));
	rest = strrchr(text, ')');
	if (!rest || sscanf(rest, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d"
			    " %*d %*d %*d %*d %llu", &state, &ticks) != 2 || state == 'Z')
		return 0;
	return ticks;
}

static char line[4096];
static int len;

static void __printf(1, 2) say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	len += vsnprintf(line + len, sizeof(line) - len, format, args);
	va_end(args);
	if (len >= (int)sizeof(line))
		len = sizeof(line) - 1;
}

static void say_clock(const char *name, clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	say(" %s=%llu", name, now.tv_sec * 1000000000ull + now.tv_nsec);
}

static void say_processes(void)
{
	for (unsigned int i = 0; i < nr_processes; i++)
		say(" %s.process=%d:%llu %s.faults=%llu", processes[i].name, processes[i].pid,
		    start_time(processes[i].pid), processes[i].name,
		    processes[i].faults->count);
}

static void say_work(void)
{
	const struct shared *s = shared;

	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++) {
		const struct stamper *stamper = &s->stamper[cpu];
		char name[24];

		sprintf(name, "stamper%u", cpu);
		say(" %s.count=%llu %s.gap_mono_ns=%llu %s.gap_real_ns=%llu %s.gap_tsc=%llu"
		    " %s.gap_at=%llu", name, stamper->count, name, stamper->gap_mono_ns, name,
		    stamper->gap_real_ns, name, stamper->gap_tsc, name, stamper->gap_at);
	}
	say(" checker.pages=%llu checker.version=%llu checker.steps=%llu", s->checker.pages,
	    s->checker.version, s->checker.steps);
	say(" receiver.bytes=%llu receiver.sum=%016llx", s->receiver.bytes, s->receiver.sum);
	say(" sender.bytes=%llu sender.sum=%016llx", s->sender.bytes, s->sender.sum);
	say(" writer.blocks=%llu writer.verified=%llu", s->writer.blocks, s->writer.verified);
}

static void say_nic(u64 number)
{
	const struct nic *nic = &shared->nic;

	if (!nic_present())
		return;
	say(" nic.up=%llu nic.frames=%llu nic.next=%llu nic.lost=%llu nic.repeated=%llu"
	    " nic.damaged=%llu talker.blocks=%llu", nic->up, nic->frames, nic->next, nic->lost,
	    nic->repeated, nic->damaged, shared->talk.blocks);
	say_interrupts(say);
	/* All of the device's counters are read for it. */
	if (number % BEATS_PER_COUNT == 0)
		say(" nic.counted=%llu", nic_counted());
}

static void write_out(void)
{
	say("\n");
	/* The console may take it in pieces. */
	for (int done = 0; done < len;) {
		ssize_t wrote = write(STDOUT_FILENO, line + done, len - done);

		if (wrote <= 0)
			break;
		done += wrote;
	}
	len = 0;
}

static void beat(u64 number)
{
	char boot_id[64];

	read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	say("beat n=%llu boot_id=%s", number, boot_id);
	say_clock("mono_ns", CLOCK_MONOTONIC);
	say_clock("boot_ns", CLOCK_BOOTTIME);
	say_clock("real_ns", CLOCK_REALTIME);
	say(" tsc=%llu", read_counter());
	say_processes();
	say_work();
	say_nic(number);
	write_out();
}

static void say_complaints(void)
{
	char text[512];

	while (kernel_complains(text, sizeof(text))) {
		say("kernel %s", text);
		write_out();
	}
}

/* The first fault of each process in words, once. */
static void say_new_faults(void)
{
	for (unsigned int i = 0; i < nr_processes; i++) {
		struct process *process = &processes[i];

		if (!process->faults->count || process->told)
			continue;
		process->told = true;
		say("fault %s: %s", process->name, process->faults->first);
		write_out();
	}
}

static void hello(void)
{
	struct utsname name;
	char text[256];

	uname(&name);
	read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", text,
		  sizeof(text));
	say("hello release=%s nonce=%016llx cpus=%u clocksource=%s", name.release, shared->nonce,
	    nr_cpus, text);
	write_out();
}

/* For controls: each of these has to be noticed. */
static void corrupt(const char *what)
{
	if (!strcmp(what, "process")) {
		kill(processes[0].pid, SIGKILL);
		processes[0].pid = start(processes[0].name);
	} else if (!corrupt_something(what)) {
		return;
	}
	say("corrupted %s", what);
	write_out();
}

static void hear(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char text[64];
	ssize_t got;

	if (poll(&input, 1, BEAT_MS) <= 0)
		return;
	got = read(STDIN_FILENO, text, sizeof(text) - 1);
	if (got <= 0)
		return;
	text[got] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	corrupt(text);
}

static u64 nonce(void)
{
	char text[2048], *at;

	read_line("/proc/cmdline", text, sizeof(text));
	at = strstr(text, "nonce=");
	return at ? strtoull(at + strlen("nonce="), NULL, 16) : 0;
}

int main(void)
{
	char module[64];
	int error;

	mount_all();
	error = load_modules(module, sizeof(module));
	open_console();
	errno = error;
	if (error)
		die("module %s", module);
	loopback_up();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED)
		die("shared memory");
	shared->nonce = nonce();
	signal(SIGCHLD, SIG_IGN);
	start_all();
	hello();
	/* Of its boot: what comes later is of a guest at work. */
	say_complaints();
	for (u64 number = 1;; number++) {
		beat(number);
		say_new_faults();
		say_complaints();
		hear();
	}
}
