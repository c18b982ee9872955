/*
 * slow_fsync DELAY PROGRAM [ARGUMENT]...
 *
 * Runs a program whose calls of fsync and fdatasync take longer by the number of milliseconds in the file DELAY, which may
 * change while the program runs. It works for static programs too, such as etcd: a seccomp filter passes these calls to a
 * second process, which waits and then lets the kernel continue. Needs Linux 5.19 and no root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const char *delay_file;
static int listener;

static void fail(const char *what) {
    fprintf(stderr, "slow_fsync: %s: %s\n", what, strerror(errno));
    exit(125);
}

static unsigned delay(void) {
    unsigned milliseconds = 0;
    FILE *file = fopen(delay_file, "r");
    if (file) {
        if (fscanf(file, "%u", &milliseconds) != 1)
            milliseconds = 0;
        fclose(file);
    }
    return milliseconds;
}

static void *hold(void *call) {
    struct seccomp_notif_resp answer = {.id = *(__u64 *)call, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    free(call);
    usleep(delay() * 1000);
    /* ENOENT: the thread has died meanwhile. */
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    return NULL;
}

/* The second process: each call is held by a thread of its own, so that they delay only themselves. */
static void serve(int from) {
    char byte, space[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        exit(125);
    memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    for (;;) {
        struct seccomp_notif call;
        pthread_t thread;
        memset(&call, 0, sizeof call);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) {
            if (errno == EINTR || errno == ENOENT)
                continue;
            exit(0);
        }
        __u64 *id = malloc(sizeof *id);
        if (!id)
            exit(125);
        *id = call.id;
        if (pthread_create(&thread, NULL, hold, id))
            exit(125);
        pthread_detach(thread);
    }
}

int main(int count, char **words) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    int pair[2];
    pid_t main_process = getpid();

    if (count < 3) {
        fprintf(stderr, "usage: slow_fsync DELAY PROGRAM [ARGUMENT]...\n");
        return 125;
    }
    delay_file = words[1];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        fail("socketpair");
    pid_t second = fork();
    if (second < 0)
        fail("fork");
    if (second == 0) {
        /* It ends with the program, however that ends. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != main_process)
            return 125;
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        serve(pair[1]);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("no_new_privs");
    int notices = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                               SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (notices < 0)
        fail("seccomp (Linux 5.19 or newer is needed)");
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &notices, sizeof notices);
    if (sendmsg(pair[0], &message, 0) != 1)
        fail("sendmsg");
    execvp(words[2], words + 2);
    fail(words[2]);
}
