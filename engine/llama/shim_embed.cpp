//go:build llama

#include "shim_embed.h"

#include "llama-model.h"

bool tdm_embedding_facts(const struct llama_model * model, tdm_embedding * out) {
    try {
        out->causal     = model->hparams.causal_attn;
        out->classifier = model->cls != nullptr || model->cls_out != nullptr;
        out->pooling    = (int32_t) model->hparams.pooling_type;
        out->size       = llama_model_n_embd_out(model);
        return true;
    } catch (...) {
        return false;
    }
}
