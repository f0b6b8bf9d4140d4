//go:build llama

#include "shim.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

struct tdm_thread {
    std::mutex              mu;
    std::condition_variable changed;
    enum { IDLE, POSTED, DONE, STOP } state = IDLE;

    // Of the last post.
    struct llama_context * ctx    = nullptr;
    int32_t                n      = 0;
    int32_t *              token  = nullptr;
    int32_t *              pos    = nullptr;
    int32_t *              seq    = nullptr;
    int8_t *               output = nullptr;
    int32_t                rc     = 0;

    int         fd = -1;
    std::thread thread;

    void run() {
        pthread_setname_np(pthread_self(), "decode"); // and the workers that it starts
        std::unique_lock<std::mutex> lock(mu);
        for (;;) {
            changed.wait(lock, [this] { return state == POSTED || state == STOP; });
            if (state == STOP) return;
            lock.unlock();
            const int32_t got = tdm_decode(ctx, n, token, pos, seq, output);
            lock.lock();
            rc    = got;
            state = DONE;
            changed.notify_all();
            const uint64_t one = 1;
            (void) !write(fd, &one, sizeof(one)); // a counter of 64 bits isn't full
        }
    }
};

tdm_thread * tdm_thread_new(int * fd) {
    tdm_thread * t = nullptr;
    try {
        t     = new tdm_thread;
        t->fd = *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (t->fd >= 0) {
            t->thread = std::thread(&tdm_thread::run, t);
            return t;
        }
    } catch (const std::exception &) {
        if (t != nullptr && t->fd >= 0) close(t->fd);
    }
    delete t;
    return nullptr;
}

void tdm_thread_post(tdm_thread * t, struct llama_context * ctx, int32_t n, int32_t * token, int32_t * pos, int32_t * seq, int8_t * output) {
    {
        std::lock_guard<std::mutex> lock(t->mu);
        t->ctx = ctx, t->n = n, t->token = token, t->pos = pos, t->seq = seq, t->output = output;
        t->state = tdm_thread::POSTED;
    }
    t->changed.notify_all();
}

int32_t tdm_thread_result(tdm_thread * t) {
    std::unique_lock<std::mutex> lock(t->mu);
    t->changed.wait(lock, [t] { return t->state == tdm_thread::DONE; });
    return t->rc;
}

void tdm_thread_free(tdm_thread * t) {
    {
        std::lock_guard<std::mutex> lock(t->mu);
        t->state = tdm_thread::STOP;
    }
    t->changed.notify_all();
    t->thread.join();
    delete t;
}
