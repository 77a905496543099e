//! Real `User-Agent` texts and what is made of them.

use super::*;

const TEXTS: [(&str, Os, ClientKind); 50] = [
    // Chromium and its relatives. Brave says exactly what Chrome says.
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 \
         Safari/537.36",
        Os::Windows,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 \
         Safari/537.36 Edg/121.0.0.0",
        Os::Windows,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 \
         Safari/537.36 OPR/105.0.0.0",
        Os::Windows,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/110.0.5481.104 \
         Safari/537.36 Vivaldi/5.7.2921.53",
        Os::Windows,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 \
         Safari/537.36",
        Os::Macos,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 \
         Safari/537.36 Edg/121.0.0.0",
        Os::Macos,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Safari/537.36",
        Os::Linux,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 \
         Safari/537.36",
        Os::Linux,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Ubuntu Chromium/80.0.3987.163 \
         Chrome/80.0.3987.163 Safari/537.36",
        Os::Linux,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 \
         Safari/537.36",
        Os::Chromeos,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Mobile \
         Safari/537.36",
        Os::Android,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Mobile \
         Safari/537.36 EdgA/120.0.2210.150",
        Os::Android,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/23.0 \
         Chrome/115.0.0.0 Mobile Safari/537.36",
        Os::Android,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Linux; Android 13; SM-S908B Build/TP1A.220624.014; wv) AppleWebKit/537.36 (KHTML, like \
         Gecko) Version/4.0 Chrome/114.0.5735.196 Mobile Safari/537.36",
        Os::Android,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Slack/4.35.131 \
         Chrome/118.0.5993.159 Electron/27.1.3 Safari/537.36 Sonic Slack_SSB/4.35.131",
        Os::Windows,
        ClientKind::Chromium,
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) map-desktop/1.0.0 \
         Chrome/120.0.6099.109 Electron/28.1.0 Safari/537.36",
        Os::Linux,
        ClientKind::Chromium,
    ),
    // A web page inside OBS is a browser.
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/103.0.5060.134 \
         Safari/537.36 OBS/30.0.2",
        Os::Windows,
        ClientKind::Chromium,
    ),
    // Firefox, except on iOS.
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:122.0) Gecko/20100101 Firefox/122.0",
        Os::Windows,
        ClientKind::Firefox,
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:122.0) Gecko/20100101 Firefox/122.0",
        Os::Macos,
        ClientKind::Firefox,
    ),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0", Os::Linux, ClientKind::Firefox),
    ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:122.0) Gecko/20100101 Firefox/122.0", Os::Linux, ClientKind::Firefox),
    ("Mozilla/5.0 (Android 14; Mobile; rv:122.0) Gecko/122.0 Firefox/122.0", Os::Android, ClientKind::Firefox),
    ("Mozilla/5.0 (X11; FreeBSD amd64; rv:122.0) Gecko/20100101 Firefox/122.0", Os::Other, ClientKind::Firefox),
    // WebKit, whatever the browser on iOS calls itself.
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.3 \
         Safari/605.1.15",
        Os::Macos,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Version/17.3 Mobile/15E148 Safari/604.1",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         CriOS/121.0.6167.138 Mobile/15E148 Safari/604.1",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         FxiOS/122.0 Mobile/15E148 Safari/605.1.15",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Version/17.0 EdgiOS/120.0.2210.150 Mobile/15E148 Safari/605.1.15",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 \
         Mobile/15E148 Safari/604.1",
        Os::Ios,
        ClientKind::Safari,
    ),
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15",
        Os::Linux,
        ClientKind::Safari,
    ),
    // An iPad that asks for desktop sites: it cannot be told from a Mac.
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.4 \
         Safari/605.1.15",
        Os::Macos,
        ClientKind::Safari,
    ),
    // Tools that speak WHIP or WHEP.
    ("Mozilla/5.0 (OBS-Studio/30.0.2; Windows x86_64; en-US)", Os::Windows, ClientKind::WhipTool),
    ("Mozilla/5.0 (OBS-Studio/30.1.2; Mac OS X; de-DE)", Os::Macos, ClientKind::WhipTool),
    ("Mozilla/5.0 (OBS-Studio/30.2.3; Linux x86_64; en-GB)", Os::Linux, ClientKind::WhipTool),
    ("GStreamer souphttpsrc 1.20.3 libsoup/2.74.2", Os::Other, ClientKind::WhipTool),
    ("GStreamer souphttpsrc libsoup/3.4.0", Os::Other, ClientKind::WhipTool),
    ("Lavf/61.7.100", Os::Other, ClientKind::WhipTool),
    ("simple-whip-client/1.2.0", Os::Other, ClientKind::WhipTool),
    // Programs with a WebRTC library of their own.
    ("Python/3.11 aiohttp/3.9.1", Os::Other, ClientKind::Native),
    ("python-requests/2.31.0", Os::Other, ClientKind::Native),
    ("Go-http-client/1.1", Os::Other, ClientKind::Native),
    ("okhttp/4.12.0", Os::Other, ClientKind::Native),
    ("Dalvik/2.1.0 (Linux; U; Android 14; SM-S928B Build/UP1A.231005.007)", Os::Android, ClientKind::Native),
    ("Dart/3.2 (dart:io)", Os::Other, ClientKind::Native),
    ("MapApp/42 CFNetwork/1490.0.4 Darwin/23.2.0", Os::Other, ClientKind::Native),
    ("UnityPlayer/2022.3.16f1 (UnityWebRequest/1.0, libcurl/8.4.0-DEV)", Os::Other, ClientKind::Native),
    // curl/8.5.0 does not join calls; a native that does names its library.
    ("curl/8.5.0", Os::Other, ClientKind::Other),
    ("MapApp/3.1 (iPhone14,5; iOS 17.2)", Os::Ios, ClientKind::Other),
    ("map-kiosk/2.1 (Linux aarch64) libwebrtc/m124", Os::Linux, ClientKind::Native),
];

#[test]
fn a_user_agent_becomes_two_words() {
    for (text, os, client) in TEXTS {
        assert_eq!(reduce(Some(text)), (os, client), "{text}");
        assert_eq!(reduce(Some(&text.to_uppercase())), (os, client), "{text}");
    }
}

#[test]
fn what_says_nothing_is_other() {
    let nothing = (Os::Other, ClientKind::Other);
    assert_eq!(reduce(None), nothing);
    for text in [
        "",
        " ",
        "-",
        "Mozilla/5.0",
        "Ärger mit Ümläuten 🦊",
        "Darwin",
        "kiosk/1.0",
        "cross-platform macros",
        "Curios/2",
        "macros 8",
        "Flowhip",
        "\u{0}\u{7f}",
    ] {
        assert_eq!(reduce(Some(text)), nothing, "{text}");
    }
}

#[test]
fn only_the_beginning_counts() {
    let nothing = (Os::Other, ClientKind::Other);
    assert_eq!(reduce(Some(&"x€".repeat(2_500))), nothing, "10 kB of garbage");
    let late = "é".repeat(LOOKED_AT_BYTES) + "Windows Chrome/1";
    assert_eq!(reduce(Some(&late)), nothing);
    // The cut may fall into a character, and into a word.
    for length in LOOKED_AT_BYTES - 8..LOOKED_AT_BYTES {
        let text = "x".repeat(length) + "é€🦊Windows";
        assert_eq!(reduce(Some(&text)), nothing, "{length}");
    }
    assert_eq!(reduce(Some(&("é🦊 ".to_owned() + "Windows Chrome/1"))), (Os::Windows, ClientKind::Chromium));
}

#[test]
fn words_read_back_as_they_were_written() {
    for os in Os::ALL {
        assert_eq!(Os::from_word(os.as_str()), Some(*os));
    }
    for client in ClientKind::ALL {
        assert_eq!(ClientKind::from_word(client.as_str()), Some(*client));
    }
    assert_eq!((Os::ALL.len(), ClientKind::ALL.len()), (7, 6));
    assert_eq!((Os::from_word("Windows"), ClientKind::from_word("")), (None, None));
}
