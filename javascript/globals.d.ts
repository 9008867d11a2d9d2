// What scripts of ours and of the hosts have in common: properties of `window`. For the type checker only.

interface Window {
    /** Set by vae_lab.mjs: fulfilled once everything runs. */
    vaeLab?: Promise<void>;
    /** The WebUI's dictionary: English text -> text in the user's language. */
    localization?: Record<string, string>;
    /** The WebUI's settings. */
    opts?: {send_size?: boolean};
    switch_to_img2img?: () => void;
    switch_to_inpaint?: () => void;
    switch_to_extras?: () => void;
}
