// SPDX-License-Identifier: GPL-2.0-only
/*
 * The QEMU of the host's own package, on a read-only disk: its program, the
 * libraries that it was linked with, and their own ld.so. It is started by
 * that ld.so, so that nothing of it has to lie where it lay on the host.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu_process.h"

#define DISK "/dev/vda"
#define FOLDER "/qemu"
#define LOG "/tmp/qemu.log"
#define PORTS "/sys/class/virtio-ports"

#define KERNEL "/guest/kernel"
#define INITRD "/guest/initrd"
#define CMDLINE "/guest/cmdline"
#define GUEST_DISK "/dev/vdb"

/* The user's, of which nothing is known. */
static bool own_guest(void)
{
	return param_u64("guest_image", 0);
}

void qemu_mount(void)
{
	mkdir(FOLDER, 0755);
	must(sys(mount(DISK, FOLDER, "ext2", MS_RDONLY, NULL)));
}

static void read_folder(const char *path)
{
	struct dirent *entry;
	DIR *folder = opendir(path);

	while (folder && (entry = readdir(folder))) {
		int fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
		struct stat stat;

		if (fd >= 0 && !fstat(fd, &stat) && S_ISREG(stat.st_mode))
			readahead(fd, 0, stat.st_size);
		if (fd >= 0)
			close(fd);
	}
}

/* By a process beside us: what a QEMU will want is in memory when it is started. */
void qemu_read_ahead(void)
{
	if (must(sys(fork())))
		return;
	read_folder(FOLDER "/bin");
	read_folder(FOLDER "/lib");
	_exit(0);
}

/* Path of the virtio port that the host gave this name to. */
static void find_port(const char *name, char *path, size_t size)
{
	struct dirent *entry;
	DIR *ports = opendir(PORTS);

	must_be(ports, PORTS ": %s", errno_name(-errno));
	while ((entry = readdir(ports))) {
		char file[320], seen[64] = "";
		FILE *stream;

		snprintf(file, sizeof(file), PORTS "/%s/name", entry->d_name);
		stream = fopen(file, "re");
		if (!stream)
			continue;
		if (fgets(seen, sizeof(seen), stream))
			seen[strcspn(seen, "\n")] = '\0';
		fclose(stream);
		if (!strcmp(seen, name))
			break;
	}
	must_be(entry, "no virtio port is named %s", name);
	snprintf(path, size, "/dev/%s", entry->d_name);
	closedir(ports);
}

static void run_mkfs(const char *device)
{
	int fd = open("/dev/null", O_RDWR);

	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execl(FOLDER "/lib/ld-linux-x86-64.so.2", "ld.so", "--library-path", FOLDER "/lib",
	      FOLDER "/bin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0",
	      "-O", "^has_journal", device, NULL);
	_exit(127);
}

/* An empty ext4 without a journal, by the host's own mke2fs. */
void qemu_disk_mkfs(const char *device)
{
	pid_t pid = must(sys(fork()));
	int status;

	if (!pid)
		run_mkfs(device);
	must(sys(waitpid(pid, &status, 0)));
	must_be(WIFEXITED(status) && !WEXITSTATUS(status), "mke2fs %s: status %#x", device, status);
}

struct arguments {
	char *word[64];
	char text[4096];
	size_t words, used;
};

static void __printf(2, 3) add(struct arguments *arguments, const char *format, ...)
{
	char *at = arguments->text + arguments->used;
	size_t left = sizeof(arguments->text) - arguments->used;
	va_list values;
	int len;

	va_start(values, format);
	len = vsnprintf(at, left, format, values);
	va_end(values);
	must_be((size_t)len < left && arguments->words + 1 < ARRAY_SIZE(arguments->word),
		"%zu words", arguments->words);
	arguments->word[arguments->words++] = at;
	arguments->used += len + 1;
}

/* A guest of the user's may need firmware, PCI and ACPI; one with a device needs the latter. */
static const char *machine_of(const struct qemu_config *config)
{
	if (own_guest() || config->q35)
		return "q35";
	return config->nic ? "microvm,acpi=on,pcie=on" : "microvm,acpi=off";
}

static void add_machine(struct arguments *a, const struct qemu_config *config)
{
	add(a, "-nodefaults");
	add(a, "-no-user-config");
	add(a, "-display");
	add(a, "none");
	add(a, "-machine");
	add(a, "%s,accel=kvm,memory-backend=ram%s", machine_of(config),
	    config->nic ? ",aux-ram-share=on" : "");
	add(a, "-cpu");
	add(a, "host");
	add(a, "-smp");
	add(a, "%llu", config->vcpus);
	add(a, "-m");
	add(a, "%lluM", config->ram_size >> 20);
	add(a, "-object");
	if (config->ram_fd < 0)
		add(a, "memory-backend-memfd,id=ram,size=%lluM,share=on", config->ram_size >> 20);
	else
		/* Aligned, so that KVM can map large pages of it as such. */
		add(a, "memory-backend-file,id=ram,size=%lluM,mem-path=/proc/self/fd/%d,"
		    "share=on,align=2M", config->ram_size >> 20, config->ram_fd);
}

/* The trace says what of the guest's memory QEMU has mapped for the device. */
static void add_nic(struct arguments *a, const struct qemu_config *config)
{
	if (!config->nic)
		return;
	add(a, "-object");
	add(a, "iommufd,id=iommufd0");
	add(a, "-device");
	add(a, "vfio-pci,host=%s,iommufd=iommufd0,id=nic,rombar=0", config->nic);
	add(a, "-D");
	add(a, QEMU_TRACE);
	add(a, "-trace");
	add(a, "iommufd_backend_map_file_dma");
	add(a, "-trace");
	add(a, "iommufd_backend_unmap_dma");
}

static void add_kernel(struct arguments *a)
{
	add(a, "-kernel");
	add(a, KERNEL);
	if (access(INITRD, F_OK))
		return;
	add(a, "-initrd");
	add(a, INITRD);
}

/* The user's words for the guest's kernel; none where the kernel is ours. */
static const char *own_words(void)
{
	static char line[2048];
	FILE *file = fopen(CMDLINE, "re");

	if (!file)
		return "";
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	return line;
}

static void add_own_guest(struct arguments *a)
{
	if (access(KERNEL, F_OK)) {
		add(a, "-drive");
		add(a, "file=" GUEST_DISK ",format=raw,if=virtio");
		return;
	}
	add_kernel(a);
	add(a, "-append");
	add(a, "%s", own_words());
}

static void add_guest(struct arguments *a, const struct qemu_config *config)
{
	if (own_guest()) {
		add_own_guest(a);
		return;
	}
	add_kernel(a);
	add(a, "-append");
	add(a, "console=hvc0 quiet nonce=%016llx %s", config->nonce, own_words());
}

/* A port is read and written like a pair of pipes. */
static void add_lines(struct arguments *a, const struct qemu_config *config)
{
	char path[320];

	find_port("guest", path, sizeof(path));
	add(a, "-chardev");
	add(a, "pipe,id=guest,path=%s", path);
	if (own_guest()) {
		add(a, "-serial");
		add(a, "chardev:guest");
	} else {
		add(a, "-device");
		add(a, config->q35 ? "virtio-serial-pci" : "virtio-serial-device");
		add(a, "-device");
		add(a, "virtconsole,chardev=guest");
	}
	find_port(config->qmp, path, sizeof(path));
	add(a, "-chardev");
	add(a, "pipe,id=qmp,path=%s", path);
	add(a, "-mon");
	add(a, "chardev=qmp,mode=control");
}

static void report_words(const struct qemu_config *config, const struct arguments *a)
{
	char key[64];
	char line[4096];
	size_t len = 0;

	for (size_t i = 0; i < a->words; i++)
		len += snprintf(line + len, sizeof(line) - len, "%s%s", i ? " " : "", a->word[i]);
	snprintf(key, sizeof(key), "%s.argv", config->qmp);
	fact(key, "%s", line);
}

static void keep_open(int fd)
{
	/* Not an open file: QEMU is to say so. */
	if (fd >= 0)
		fcntl(fd, F_SETFD, 0);
}

/* Above every number that a QEMU has been seen to use. */
#define FREE_NUMBERS 512

/* First out of each other's way, then each to its own number. */
static void give_numbers(const struct qemu_config *config)
{
	int away[256];

	must_be(config->nr_fds <= ARRAY_SIZE(away), "%zu descriptors", config->nr_fds);
	for (size_t i = 0; i < config->nr_fds; i++)
		away[i] = must(sys(fcntl(config->fds[i].fd, F_DUPFD_CLOEXEC, FREE_NUMBERS)));
	for (size_t i = 0; i < config->nr_fds; i++)
		must(sys(dup2(away[i], config->fds[i].number)));
	if (config->cpr_state) {
		char number[16];

		sprintf(number, "%d", config->cpr_state);
		setenv(QEMU_CPR_STATE, number, 1);
	}
}

static void __noreturn become_qemu(const struct qemu_config *config, struct arguments *a)
{
	int log = open(LOG, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	give_numbers(config);
	keep_open(config->ram_fd);
	keep_open(config->state_fd);
	run_where_guests_may();
	execv(a->word[0], a->word);
	_exit(127);
}

pid_t qemu_start(const struct qemu_config *config)
{
	static struct arguments a;
	pid_t pid;

	a.words = a.used = 0;
	add(&a, FOLDER "/lib/ld-linux-x86-64.so.2");
	add(&a, "--library-path");
	add(&a, FOLDER "/lib");
	add(&a, FOLDER "/bin/qemu-system-x86_64");
	add(&a, "-L");
	add(&a, FOLDER "/share");
	add_machine(&a, config);
	add_guest(&a, config);
	add_lines(&a, config);
	add_nic(&a, config);
	if (config->stopped)
		add(&a, "-S");
	if (config->incoming) {
		add(&a, "-incoming");
		add(&a, "defer");
	}
	a.word[a.words] = NULL;
	report_words(config, &a);
	pid = must(sys(fork()));
	if (!pid)
		become_qemu(config, &a);
	return pid;
}

static void report_log(void)
{
	char text[1024] = "";
	FILE *log = fopen(LOG, "re");
	size_t len = log ? fread(text, 1, sizeof(text) - 1, log) : 0;

	text[len] = '\0';
	for (char *at = text; *at; at++)
		if (*at == '\n')
			*at = ' ';
	if (log)
		fclose(log);
	fact("qemu.said", "%s", text);
}

/* True when it has ended within the time; how, and what it said, is reported. */
bool qemu_ended(pid_t pid, u64 timeout_ms)
{
	struct deadline deadline = deadline_in_ms(timeout_ms);
	int status;
	pid_t ended;

	do {
		ended = must(sys(waitpid(pid, &status, WNOHANG)));
		if (!ended)
			poll_pause();
	} while (!ended && !deadline_passed(deadline));
	if (!ended)
		return false;
	if (WIFSIGNALED(status))
		fact("qemu.signal", "%d", WTERMSIG(status));
	else
		fact("qemu.exit", "%d", WEXITSTATUS(status));
	report_log();
	return true;
}
