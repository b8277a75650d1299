/* Makes sockets on a stack of libvdestack for whoever holds the other end of descriptor 0, and measures what only its
 * process can: vdestack-helper VNL ADDRESS/LEN
 *
 * Requests and answers are datagrams (AF_UNIX, SOCK_SEQPACKET):
 *   "s TYPE"   a socket, by SCM_RIGHTS, with the nanoseconds that it took
 *   "c COUNT"  nanoseconds to make, configure and delete COUNT stacks
 *   "m COUNT"  KiB (PSS) of COUNT stacks more
 * An answer is one long: what was asked for, or -errno. The end of the requests ends the process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <vdestack.h>

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct vdestack *make(char *vnl, const char *ip, const char *address) {
  char command[512];
  struct vdestack *stack = vde_addstack(vnl, "vde0");
  if (stack == NULL) return NULL;
  snprintf(command, sizeof command, "%s link set lo up;%s link set vde0 up;%s addr add %s dev vde0", ip, ip, ip, address);
  if (vde_stackcmd(stack, command) != 0) {
    vde_delstack(stack);
    errno = ENOTSUP;
    return NULL;
  }
  return stack;
}

/* KiB of this process and of its children, which are the stacks. */
static long memory(void) {
  long sum = 0, self = getpid();
  DIR *proc = opendir("/proc");
  struct dirent *entry;
  while (proc != NULL && (entry = readdir(proc)) != NULL) {
    char path[300], line[256];
    long pid = atol(entry->d_name), parent = 0, kib;
    FILE *file;
    if (pid <= 0) continue;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    if ((file = fopen(path, "r")) != NULL) {
      while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "PPid: %ld", &parent) == 1) break;
      fclose(file);
    }
    if (pid != self && parent != self) continue;
    snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", pid);
    if ((file = fopen(path, "r")) != NULL) {
      while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Pss: %ld", &kib) == 1) sum += kib;
      fclose(file);
    }
  }
  if (proc != NULL) closedir(proc);
  return sum;
}

static void answer(long value, int fd) {
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec data = {&value, sizeof value};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  }
  if (sendmsg(0, &message, MSG_NOSIGNAL) < 0) exit(1);
}

int main(int argc, char *argv[]) {
  if (argc != 4) return 2;
  char *vnl = argv[1], *address = argv[2], *ip = argv[3], request[64];
  struct vdestack *stack = make(vnl, ip, address);
  answer(stack == NULL ? -errno : 0, -1);
  if (stack == NULL) return 1;
  for (;;) {
    ssize_t len = recv(0, request, sizeof request - 1, 0);
    if (len <= 1) break;
    request[len] = 0;
    long number = atol(request + 1), start = now(), before, i;
    switch (request[0]) {
    case 's': {
      int fd = vde_msocket(stack, AF_INET, (int)number, 0);
      answer(fd < 0 ? -errno : now() - start, fd);
      if (fd >= 0) close(fd);
      break;
    }
    case 'c':
      for (i = 0; i < number; i++) {
        struct vdestack *other = make(vnl, ip, "10.99.1.1/24");
        if (other == NULL) break;
        vde_delstack(other);
      }
      answer(i < number ? -errno : now() - start, -1);
      break;
    case 'm': {
      struct vdestack **all = calloc((size_t)number, sizeof *all);
      before = memory();
      for (i = 0; i < number; i++)
        if ((all[i] = make(vnl, ip, "10.99.1.1/24")) == NULL) break;
      answer(i < number ? -errno : memory() - before, -1);
      while (i-- > 0) vde_delstack(all[i]);
      free(all);
      break;
    }
    default:
      answer(-EINVAL, -1);
    }
  }
  vde_delstack(stack);
  return 0;
}
