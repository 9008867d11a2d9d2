import js from "@eslint/js";
import globals from "globals";

export default [
    js.configs.recommended,
    {
        files: ["javascript/**/*.mjs"],
        languageOptions: {ecmaVersion: 2022, sourceType: "module", globals: globals.browser},
        linterOptions: {reportUnusedDisableDirectives: "error"},
        rules: {
            "complexity": ["error", 14],
            "curly": ["error", "multi-line"],
            "eqeqeq": "error",
            "max-len": ["error", {code: 120}],
            "max-lines": ["error", 320],
            "no-shadow": "error",
            "no-unused-vars": ["error", {caughtErrors: "all"}],
            "no-var": "error",
            "prefer-const": "error",
        },
    },
];
