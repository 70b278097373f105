"""Every text of the dashboard in English, Korean and Chinese."""

from __future__ import annotations

LANGUAGES = {"en": "English", "ko": "한국어", "zh": "中文"}

_TABLE: dict[str, tuple[str, str, str]] = {
    "title": ("OmniVoice on Triton", "OmniVoice on Triton", "OmniVoice on Triton"),
    "model": ("Model", "모델", "模型"),
    "model_help": (
        "Directory or hub id. Empty is $OMNIVOICE_TRITON_MODEL, or the packaged demo voice.",
        "디렉터리 또는 허브 ID. 비워 두면 $OMNIVOICE_TRITON_MODEL 또는 함께 설치된 데모 음성을 씁니다.",
        "目录或 hub ID。留空则使用 $OMNIVOICE_TRITON_MODEL 或随包附带的演示语音。",
    ),
    "results_folder": ("Folder of results", "결과 폴더", "结果文件夹"),
    "samples_folder": ("Folder of samples", "샘플 폴더", "样本文件夹"),
    "tab_overview": ("Overview", "개요", "概览"),
    "tab_inference": ("Side by side", "나란히 비교", "并排对比"),
    "tab_benchmarks": ("Benchmarks", "벤치마크", "基准测试"),
    "tab_verification": ("Verification", "검증", "验证"),
    "tab_samples": ("Samples", "샘플", "样本"),
    "noise": (
        "This model has random weights: what it says is noise. It is here to try everything without a download.",
        "이 모델의 가중치는 무작위라서 말소리 대신 잡음이 나옵니다. 다운로드 없이 모든 기능을 시험하기 위한 것입니다.",
        "该模型的权重是随机的，输出的是噪声，仅用于无需下载即可试用全部功能。",
    ),
    "demo_voice": (
        "This is the demo voice: small, robotic, and it knows some hundred words of English, Korean and Chinese. "
        "For a real voice give k2-fsa/OmniVoice as the model.",
        "이것은 데모 음성입니다. 작고 로봇 같으며 영어, 한국어, 중국어 단어 수백 개만 압니다. "
        "실제 목소리를 들으려면 모델에 k2-fsa/OmniVoice를 넣으세요.",
        "这是演示语音：模型很小，声音机械，只认识英语、韩语和汉语的几百个词。"
        "要听真实的声音，请在模型处填写 k2-fsa/OmniVoice。",
    ),
    "device": ("Device", "장치", "设备"),
    "weights": ("Weights", "가중치", "权重"),
    "auto_takes": ("`auto` takes", "`auto` 선택", "`auto` 选择"),
    "gpu_memory": ("GPU memory", "GPU 메모리", "显存"),
    "modes": ("Modes", "모드", "模式"),
    "mode": ("mode", "모드", "模式"),
    "what_it_is": ("what it is", "설명", "说明"),
    "runs_here": ("runs here", "실행 가능", "可运行"),
    "remark": ("remark", "비고", "备注"),
    "yes": ("yes", "예", "是"),
    "no": ("no", "아니요", "否"),
    "versions": ("Versions", "버전", "版本"),
    "machine": ("Machine", "시스템", "机器"),
    "text": ("Text", "텍스트", "文本"),
    "spoken_language": ("Spoken language", "말하는 언어", "语音语言"),
    "model_decides": ("let the model tell", "모델이 판단", "由模型判断"),
    "voice": ("Voice", "목소리", "音色"),
    "voice_auto": ("the model's choice", "모델이 선택", "模型选择"),
    "voice_clone": ("cloned", "복제", "克隆"),
    "voice_design": ("designed", "설계", "设计"),
    "instruct": ("Describe the voice", "목소리 설명", "描述音色"),
    "upload": ("A recording of 3 to 10 s", "3~10초 분량의 녹음", "3 到 10 秒的录音"),
    "microphone": ("or record one", "또는 직접 녹음", "或现场录制"),
    "transcript": ("What is said in it", "녹음에서 말한 내용", "录音内容"),
    "options": ("Options", "옵션", "选项"),
    "steps": ("Decoding steps", "디코딩 단계", "解码步数"),
    "guidance": ("Guidance", "가이던스", "引导强度"),
    "seed": ("Seed", "시드", "随机种子"),
    "speed": ("Speed", "속도", "语速"),
    "seconds": ("Seconds (0: estimated)", "길이(초, 0: 자동)", "时长（秒，0 为自动）"),
    "temperature": ("Position temperature", "위치 온도", "位置温度"),
    "say_it": ("Say it", "말하기", "合成"),
    "choose_modes": ("Choose at least one mode.", "모드를 하나 이상 고르세요.", "请至少选择一个模式。"),
    "give_text": ("Give a text.", "텍스트를 입력하세요.", "请输入文本。"),
    "give_reference": (
        "Upload or record a reference for the cloned voice.",
        "복제할 목소리의 녹음을 올리거나 녹음하세요.",
        "请上传或录制要克隆的声音。",
    ),
    "give_transcript": (
        "Write what is said in the recording.",
        "녹음에서 말한 내용을 적어 주세요.",
        "请写出录音的内容。",
    ),
    "give_instruct": ("Describe the voice.", "목소리를 설명해 주세요.", "请描述音色。"),
    "reference_good": (
        "Recording: {seconds:.1f} s at {rate} Hz",
        "녹음: {seconds:.1f}초, {rate} Hz",
        "录音：{seconds:.1f} 秒，{rate} Hz",
    ),
    "loading": ("loading {mode} …", "{mode} 불러오는 중 …", "正在加载 {mode} …"),
    "step_of": (
        "{mode}: step {done} of {total}, {seconds:.1f} s",
        "{mode}: {total}단계 중 {done}단계, {seconds:.1f}초",
        "{mode}：第 {done}/{total} 步，{seconds:.1f} 秒",
    ),
    "time": ("time", "시간", "耗时"),
    "speed_x": ("times real time", "실시간 배속", "实时倍数"),
    "audio_seconds": ("audio", "음성 길이", "音频时长"),
    "vram": ("peak VRAM", "최대 VRAM", "峰值显存"),
    "first_call": (
        "The first call of a mode loads the model and captures graphs; say it again for warm figures.",
        "모드의 첫 호출은 모델을 불러오고 그래프를 캡처합니다. 준비된 수치는 다시 한 번 실행해 확인하세요.",
        "每个模式首次调用会加载模型并捕获图；再运行一次可得到预热后的数据。",
    ),
    "waveform": ("waveform", "파형", "波形"),
    "spectrogram": ("spectrogram", "스펙트로그램", "频谱图"),
    "result_files": ("Result files", "결과 파일", "结果文件"),
    "add_results": ("Add results of your own", "내 결과 추가", "添加自己的结果"),
    "no_results": (
        "No result files found. `omnivoice-triton bench speed --json FILE` writes one; upload it here, or name its "
        "folder in the sidebar.",
        "결과 파일이 없습니다. `omnivoice-triton bench speed --json FILE`로 만들어 여기에 올리거나 사이드바에 폴더를 "
        "적으세요.",
        "未找到结果文件。可用 `omnivoice-triton bench speed --json FILE` 生成后在此上传，或在侧边栏填写其文件夹。",
    ),
    "bad_results": (
        "{name} is no result file: {why}",
        "{name}은(는) 결과 파일이 아닙니다: {why}",
        "{name} 不是结果文件：{why}",
    ),
    "precision": ("Precision", "정밀도", "精度"),
    "clock": ("Clock", "측정 방식", "计时方式"),
    "figures": ("Figures", "수치", "数据"),
    "latency": ("median milliseconds, p5 to p95", "중앙값(밀리초), p5~p95", "中位毫秒数，p5 至 p95"),
    "kernel_speedup": ("times PyTorch eager", "PyTorch eager 대비 배수", "相对 PyTorch eager 的倍数"),
    "throughput": ("audio seconds per second", "초당 음성 길이(초)", "每秒生成的音频秒数"),
    "nothing_to_draw": (
        "No chart for this kind: {kind}.",
        "이 종류의 차트는 없습니다: {kind}.",
        "该类型没有图表：{kind}。",
    ),
    "compare": ("Compare two files", "두 파일 비교", "比较两个文件"),
    "before": ("before", "이전", "之前"),
    "after": ("after", "이후", "之后"),
    "compare_run": ("Compare", "비교", "比较"),
    "regressions": ("Slower beyond noise", "잡음 이상으로 느려짐", "超出噪声的变慢"),
    "no_regressions": (
        "Nothing is slower beyond noise.",
        "잡음 이상으로 느려진 것이 없습니다.",
        "没有超出噪声的变慢。",
    ),
    "tiers": ("Tiers", "단계", "层级"),
    "tier_1": ("1 Kernels", "1 커널", "1 内核"),
    "tier_2": ("2 Model", "2 모델", "2 模型"),
    "tier_3": ("3 Speech", "3 음성", "3 语音"),
    "sentences": ("Sentences of tier 3", "3단계 문장 수", "第 3 层句子数"),
    "run_verification": ("Verify now", "지금 검증", "立即验证"),
    "verifying": ("Verifying …", "검증 중 …", "正在验证 …"),
    "no_report": (
        "No report yet: press the button.",
        "아직 보고서가 없습니다. 단추를 누르세요.",
        "还没有报告：请按按钮。",
    ),
    "checks": ("checks", "검사", "检查数"),
    "failed": ("failed", "실패", "失败"),
    "passed": ("PASS", "통과", "通过"),
    "not_passed": ("FAIL", "실패", "未通过"),
    "notes": ("Notes", "참고", "说明"),
    "committed": ("Committed results", "커밋된 결과", "已提交的结果"),
    "verify_broke": (
        "The verification could not run: {why}",
        "검증을 실행할 수 없습니다: {why}",
        "无法运行验证：{why}",
    ),
    "save_report": ("Save the report", "보고서 저장", "保存报告"),
    "no_samples": (
        "No samples found. `make generate-samples` says the same sentences in every mode (`omnivoice-triton samples "
        "--out DIR` outside of a checkout); name its folder in the sidebar.",
        "샘플이 없습니다. `make generate-samples`로 모든 모드의 같은 문장을 만들고(체크아웃 밖에서는 `omnivoice-triton "
        "samples --out DIR`) 사이드바에 폴더를 적으세요.",
        "未找到样本。`make generate-samples` 会用每个模式说同样的句子（不在源码目录中则用 `omnivoice-triton samples "
        "--out DIR`）；请在侧边栏填写其文件夹。",
    ),
    "no_samples_folder": (
        "No such folder: {folder}",
        "폴더가 없습니다: {folder}",
        "文件夹不存在：{folder}",
    ),
    "no_samples_there": (
        "{folder} has no metadata.json, hence no samples. `omnivoice-triton samples --out DIR` makes some.",
        "{folder}에 metadata.json이 없어 샘플이 없습니다. `omnivoice-triton samples --out DIR`로 만들 수 있습니다.",
        "{folder} 中没有 metadata.json，因此没有样本。可用 `omnivoice-triton samples --out DIR` 生成。",
    ),
    "samples_unusable": (
        "{folder}: metadata.json can't be read, or none of the files that it lists is there.",
        "{folder}: metadata.json을 읽을 수 없거나 그 안에 적힌 파일이 하나도 없습니다.",
        "{folder}：无法读取 metadata.json，或其中列出的文件都不存在。",
    ),
    "samples_lost": (
        "{count} of the listed samples are missing.",
        "목록에 있는 샘플 중 {count}개가 없습니다.",
        "列出的样本中有 {count} 个不存在。",
    ),
    "samples_made": (
        "Model {model}, {device}, {dtype}, {steps} steps, {date} {commit}",
        "모델 {model}, {device}, {dtype}, {steps}단계, {date} {commit}",
        "模型 {model}，{device}，{dtype}，{steps} 步，{date} {commit}",
    ),
    "samples_left_out": ("Not made: {modes}", "만들지 않음: {modes}", "未生成：{modes}"),
    "samples_reference": (
        "The recording that is cloned: {text}",
        "복제한 녹음: {text}",
        "被克隆的录音：{text}",
    ),
    "tokens_equal": (
        "tokens equal to base: {share:.1%}",
        "base와 같은 토큰: {share:.1%}",
        "与 base 相同的 token：{share:.1%}",
    ),
    "all": ("all", "전체", "全部"),
}

SENTENCES = {
    "en": "Hello, welcome to the OmniVoice text-to-speech system.",
    "ko": "안녕하세요, 옴니보이스 음성 합성 시스템에 오신 것을 환영합니다.",
    "zh": "你好，欢迎使用全能语音合成系统。",
}
"""What the text box starts with."""
DEMO_SENTENCES = {
    "en": "The train leaves at twelve ten in August.",
    "ko": "기차는 한 시 십팔 분에 출발합니다.",
    "zh": "火车下午八点十六分出发。",
}
"""The same for the demo voice: of its vocabulary, but nothing that it was trained on."""


class Words:
    """The texts of one language.

    Args:
        code: a key of `LANGUAGES`.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        self._column = list(LANGUAGES).index(code)

    def __call__(self, key: str, **values: object) -> str:
        """The text of `key`, with values filled in."""
        return _TABLE[key][self._column].format(**values)


def keys() -> tuple[str, ...]:
    """Every key there is."""
    return tuple(_TABLE)
