"""What the tiers of `verify` say of themselves in English, in Korean and Chinese: templates for `remarks`."""

from __future__ import annotations

TIERS: tuple[tuple[str, str, str], ...] = (
    (
        "every kernel against its plain PyTorch twin and a float64 reference",
        "모든 커널을 PyTorch로만 쓴 짝과, float64 기준과 비교합니다",
        "将每个内核与其纯 PyTorch 对照实现及 float64 参考比较",
    ),
    (
        "hidden states, logits and choices of each mode on base's own canvases, against base and base in fp32",
        "base가 지나간 캔버스 위에서 각 모드의 은닉 상태, 로짓, 선택을 base 및 fp32 base와 비교합니다",
        "在 base 自己的画布上，将各模式的隐藏状态、logits 与选择同 base 及 fp32 的 base 比较",
    ),
    (
        "the same texts, seeds and voice in every mode beside base",
        "모든 모드가 base와 같은 문장, 시드, 목소리로 말합니다",
        "所有模式与 base 用相同的文本、种子和声音",
    ),
    ("compiled for this GPU", "이 GPU용으로 컴파일했습니다", "为此 GPU 编译"),
    (
        "in Triton's interpreter on the CPU, at small sizes",
        "CPU에서 Triton 인터프리터로, 작은 크기로 실행했습니다",
        "在 CPU 上用 Triton 解释器、以小尺寸运行",
    ),
    (
        "not checked here: {kernels}: {why}",
        "여기서 확인하지 않음: {kernels}: {why}",
        "此处未检查：{kernels}：{why}",
    ),
    (
        "not in bfloat16, whose products the interpreter can't form: {kernels}",
        "인터프리터가 bfloat16 곱을 만들지 못해 bfloat16에서 제외: {kernels}",
        "解释器无法计算 bfloat16 乘积，故不含 bfloat16：{kernels}",
    ),
    (
        "INT8-QK modes are approximate: held to their cosines, not to base's error or choices",
        "INT8-QK 모드는 근사입니다: base의 오차나 선택이 아니라 코사인으로만 판정합니다",
        "INT8-QK 模式是近似的：只按余弦判定，不按 base 的误差或选择",
    ),
    (
        "turbo: no graphs on this device, so replay against eager was not compared",
        "turbo: 이 장치에는 그래프가 없어 재생과 즉시 실행을 비교하지 않았습니다",
        "turbo：此设备没有图，因此未比较重放与即时执行",
    ),
    (
        "{count} utterances, {steps} steps, {dtype}",
        "발화 {count}개, {steps}스텝, {dtype}",
        "{count} 句语音，{steps} 步，{dtype}",
    ),
    (
        "CER: not measured, no recogniser (--recogniser whisper, extra eval, or module:function)",
        "CER: 인식기가 없어 재지 않았습니다(--recogniser whisper, extra eval, 또는 module:function)",
        "CER：没有识别器，未测量（--recogniser whisper，extra eval，或 module:function）",
    ),
    (
        "CER: not of {languages}, which {recogniser} doesn't know",
        "CER: {recogniser}이(가) 모르는 {languages}은(는) 제외했습니다",
        "CER：不含 {recogniser} 不懂的 {languages}",
    ),
    (
        "CER by {recogniser}: of noise, so it is shown and not judged",
        "CER 인식기 {recogniser}: 잡음을 들은 값이라 보이기만 하고 판정하지 않습니다",
        "CER 由 {recogniser} 给出：针对噪声，仅显示而不判定",
    ),
    ("CER by {recogniser}", "CER 인식기: {recogniser}", "CER 由 {recogniser} 给出"),
    (
        "naturalness: not measured, {why}",
        "자연스러움: 재지 않았습니다, {why}",
        "自然度：未测量，{why}",
    ),
    (
        "no naturalness scorer is installed ({package} is one; or --scorer module:function)",
        "평가기가 설치되어 있지 않습니다({package}이(가) 그 하나이며, --scorer module:function도 됩니다)",
        "未安装自然度评分器（{package} 即是一种；或 --scorer module:function）",
    ),
    ("--scorer none", "--scorer none으로 껐습니다", "已用 --scorer none 关闭"),
    (
        "naturalness by {scorer}: of noise, so it is shown and not judged",
        "자연스러움 평가기 {scorer}: 잡음을 들은 값이라 보이기만 하고 판정하지 않습니다",
        "自然度由 {scorer} 给出：针对噪声，仅显示而不判定",
    ),
    ("naturalness by {scorer}", "자연스러움 평가기: {scorer}", "自然度由 {scorer} 给出"),
    (
        "the demo voice's own held-out sentences, English, Korean and Chinese in turn",
        "데모 음성이 배우지 않은 자신의 문장을 영어, 한국어, 중국어 차례로 말합니다",
        "演示语音自己的留出句子，英、韩、中轮流",
    ),
    (
        "random weights: speech is noise; nothing here says how the real weights sound",
        "무작위 가중치: 소리는 잡음이며, 실제 가중치가 어떻게 들리는지는 여기서 알 수 없습니다",
        "随机权重：语音只是噪声；这里无法说明真实权重的声音",
    ),
    (
        "speaker similarity: cosine of MFCC means and spreads, no speaker model",
        "화자 유사도: 화자 모델이 아니라 MFCC 평균과 퍼짐의 코사인입니다",
        "说话人相似度：MFCC 均值与离散度的余弦，未用说话人模型",
    ),
    (
        "the voice to clone says a sentence in each language; clones keep to their own",
        "복제할 목소리가 언어마다 한 문장을 말하고, 복제는 자기 언어의 것만 씁니다",
        "待克隆的声音用每种语言各说一句；克隆只用本语言的那句",
    ),
    (
        "{mode} in {dtype}: no utterance has all of base's tokens, so samples were not compared with base's",
        "{mode}, {dtype}: base와 토큰이 모두 같은 발화가 없어 샘플을 base와 비교하지 않았습니다",
        "{mode}（{dtype}）：没有一句与 base 的全部 token 相同，因此未与 base 比较采样",
    ),
    (
        "base in {dtype} repeats only {share} of its fp32 tokens: their agreement says little",
        "{dtype}의 base가 fp32 때의 토큰을 {share}만 되풀이합니다: 일치율로 알 수 있는 것이 적습니다",
        "{dtype} 的 base 只重复其 fp32 token 的 {share}：一致率说明不了什么",
    ),
)
"""English, Korean, Chinese. Of two that fit, the longer comes first."""
