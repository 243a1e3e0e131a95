"""Questions as the model was trained to be asked: through the checkpoint's own chat template where it has one."""

from __future__ import annotations

from typing import Any

from imc_lite.models.hf.families import Family


def render(processor: Any, family: Family, question: str, with_image: bool) -> str:
    """The whole prompt up to where the answer begins; with the processor's image token before the question."""
    question = defuse(processor, question)
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] if with_image else []
        message = {"role": "user", "content": [*content, {"type": "text", "text": question}]}
        return processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return family.prompt.format(image=image_token(processor) if with_image else "", question=question)


def image_token(processor: Any) -> str:
    """What stands for a picture in a prompt (Gemma3's processors know it as the token that begins one)."""
    return getattr(processor, "boi_token", None) or processor.image_token


def defuse(processor: Any, text: str) -> str:
    """Text whose control tokens are plain words: a question that holds "<image>" shows no second picture."""
    tokenizer = processor.tokenizer
    known = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    known |= {t for t in (*tokenizer.all_special_tokens, image_token(processor), processor.image_token) if t}
    for token in sorted(known, key=len, reverse=True):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
